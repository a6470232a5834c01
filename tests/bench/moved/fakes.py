"""The fakes of the verifier's tiers, behind a router with workers to remove and add."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from kvstrata.cluster import Cluster
from kvstrata.drain.site import Site
from tests.drain.fakes import FakeRouter
from tests.verify.fakes.site import CHUNK, FakeNode
from tests.verify.fakes.site import Site as Stack


class Conversing(FakeNode):
    """Knows the beginning of a prompt that an earlier one was, here or on the stores."""

    def _stream(self, body: dict[str, Any]) -> Iterator[str]:
        prompt = body["prompt"]
        own, stored = _known(prompt, self.local), _known(prompt, self.site.stored)
        loaded = max(0, stored // CHUNK * CHUNK - own)
        count = self.count
        count["requests"] += 1
        count["local"] += own
        count["l2"] += loaded
        count["hits"] += loaded
        count["transferred"] += loaded
        count["computed"] += len(prompt) - own - loaded
        count["submitted"] += len(prompt) // CHUNK
        count["completed"] += len(prompt) // CHUNK
        self.local.add(prompt)
        self.site.stored.add(prompt)
        for _ in range(body["max_tokens"]):
            yield json.dumps({"choices": [{"text": "z"}]})
        usage = {"prompt_tokens": len(prompt), "completion_tokens": body["max_tokens"]}
        yield json.dumps({"choices": [], "usage": usage})
        yield "[DONE]"


def _known(prompt: str, texts: set[str]) -> int:
    return max((len(text) for text in texts if prompt.startswith(text)), default=0)


class ServingRouter(FakeRouter):
    """Sends a completion to the first worker that is listed, or to the least busy one."""

    def __init__(self, nodes: dict[str, FakeNode]) -> None:
        super().__init__(list(nodes))
        self.nodes = nodes
        self.sticky = False
        self.astray: str | None = None
        self.busy = dict.fromkeys(nodes, 0)

    def answer(self, verb: str, path: str, url: str, body: dict[str, Any]) -> tuple[int, str | Generator[str]]:
        if path == "/v1/completions":
            urls = sorted(self.workers)
            chosen = self.astray or (urls[0] if self.sticky else min(urls, key=lambda one: self.busy[one]))
            # Counted before anything is sent: whoever comes next must see it.
            self.busy[chosen] += 1
            return 200, self._answered(chosen, body)
        return super().answer(verb, path, url, body)

    def _answered(self, url: str, body: dict[str, Any]) -> Generator[str]:
        try:
            if body["max_tokens"] < 1000:
                yield from self.nodes[url]._stream(body)
                return
            for _ in range(2000):
                yield json.dumps({"choices": [{"text": "x"}]})
                time.sleep(0.005)
            yield "[DONE]"
        finally:
            self.busy[url] -= 1


class FakeSite:
    """The stack, its router replaced."""

    def __init__(self, state_dir: Path) -> None:
        self.stack = Stack(state_dir)
        self.stack.document["profile"] = "router"
        self.stack.nodes = {name: Conversing(self.stack, name) for name in self.stack.nodes}
        nodes = {f"http://{one['ssh']['host']}:8000": one["name"] for one in self.stack.document["nodes"]}
        self.router = ServingRouter({url: self.stack.nodes[name] for url, name in nodes.items()})
        self.said: list[str] = []
        self._exit = ExitStack()

    @property
    def cluster(self) -> Cluster:
        return self.stack.cluster

    @property
    def site(self) -> Site:
        return Site(self.cluster, self.stack.shells, self.said.append)

    def __enter__(self) -> FakeSite:
        self._exit.enter_context(self.stack)
        self._exit.enter_context(self.router)
        for name, engine in self.stack.engine.items():
            node = self.stack.nodes[name]
            engine.routes["/metrics"] = partial(self._metrics, node)
        for shell in self.stack.shells.values():
            shell.answers["/opt/kvstrata/current/bin/python"] = "lmcache=0.5.6\nvllm=0.31.0"
            shell.answers["cat /proc/sys/kernel/random/boot_id"] = "boot-1"
            for host, port in list(shell.ports):
                if port == 9000:
                    shell.ports[host, port] = self.router.port
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._exit.close()

    def _metrics(self, node: FakeNode, body: dict[str, Any]) -> str:
        return node.engine_metrics({}) + "vllm:num_requests_running 0.0\nvllm:num_requests_waiting 0.0\n"
