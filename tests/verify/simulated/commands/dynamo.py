"""Dynamo's part of a node: the release's Python, which counts tokens, and etcd's own tool."""

from __future__ import annotations

import base64
import json
import zlib

from kvstrata.verify import count_tokens, dynamo
from tests.verify.simulated.commands.registry import Said, answers
from tests.verify.simulated.state import Machine
from tests.verify.simulated.vllm import VERSION, tokenize


@answers(dynamo.PYTHON, "-c", count_tokens)
def _count(machine: Machine, words: list[str]) -> str:
    return f"{len(tokenize(zlib.decompress(base64.b64decode(words[4])).decode()))}\n"


@answers(dynamo.PYTHON, "-c", dynamo._VERSIONS)
def _versions(machine: Machine, words: list[str]) -> str:
    return f"{VERSION} in Dynamo 1.6.1\n"


@answers("env", "ETCDCTL_API=3", "etcdctl")
def _etcdctl(machine: Machine, words: list[str]) -> Said:
    members = {node.etcd.url: node.name for node in machine.cluster.nodes if node.etcd is not None}
    told = [{"endpoint": url, "health": not machine.site.nodes[name].etcd_ill} for url, name in members.items()]
    return Said(json.dumps(told), status=0 if all(one["health"] for one in told) else 1)
