"""A site of two nodes: fake services on real sockets that share their stores as the real ones do."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from kvstrata.cluster import Cluster, parse
from kvstrata.verify.context import NodeContext, Peer
from tests.verify.fakes import documents, engines, nodes
from tests.verify.fakes.host import FakeHost
from tests.verify.fakes.resp import RespServer
from tests.verify.fakes.shell import FakeShell
from tests.verify.fakes.web import Code, WebServer

CHUNK = 256
FINDMNT = {
    "filesystems": [
        {
            "target": "/drives/d0",
            "source": "/dev/nvme0n1",
            "fstype": "xfs",
            "fsroot": "/",
            "maj:min": "259:0",
            "options": "rw,noatime",
        }
    ]
}


ROUTER_METRICS = """vllm_router_requests_total{route="/v1/chat/completions"} 3
vllm_router_policy_decisions_total{policy="cache_aware",worker="http://10.9.0.11:8000"} 3
"""


class FakeNode:
    """One engine and one LMCache. A prompt's chunks are known to L1, to the stores, or to nobody."""

    def __init__(self, site: Site, name: str) -> None:
        self.site, self.name = site, name
        self.shell = FakeShell()
        self.host = FakeHost(self.shell)
        self.l1: set[str] = set()
        self.local: set[str] = set()
        self.said: set[str] = set()
        self.invocation = 1
        # The ways to be wrong.
        self.connected = True
        self.stores = True
        self.loads = True
        self.restarts = True
        self.clears_l1 = True
        self.output = 7
        self.extra_requests = 0
        self.shift = 0.0
        self.files = {"model.safetensors": {"size": 1000, "sha256": "aa"}, "config.json": {"size": 10, "sha256": "bb"}}
        self.units: dict[str, str] = {}
        self._zero()

    def _zero(self) -> None:
        names = "requests queries hits computed local transferred l1 l2 loaded submitted completed"
        self.count = dict.fromkeys(names.split(), 0)

    def restart(self, argv: Sequence[str]) -> str:
        if self.restarts:
            self.invocation += 1
            self.local.clear()
            if self.clears_l1:
                self.l1.clear()
            self._zero()
        return ""

    def show_units(self, argv: Sequence[str]) -> str:
        blocks = []
        for unit in argv[argv.index("--") + 1 :]:
            state = self.units.get(unit, "LoadState=loaded\nActiveState=active\nSubState=running\nNRestarts=0")
            enabled = "" if "UnitFileState" in state else "\nUnitFileState=enabled"
            blocks.append(f"Id={unit}\n{state}{enabled}\nResult=success\nInvocationID={self.invocation}")
        return "\n\n".join(blocks)

    def completions(self, body: dict[str, Any]) -> object:
        if body.get("stream"):
            return self._stream(body)
        self.count["requests"] += 1
        if self.connected:
            self.count["queries"] += len(body["prompt"])
        return engines.completion(body, self.output, self.shift)

    def chat(self, body: dict[str, Any]) -> object:
        """A turn of a conversation, whose earlier turns are known here."""
        said = "\n".join(message["content"] for message in body["messages"])
        known = max((len(text) for text in self.said if said.startswith(text)), default=0)
        self.said.add(said)
        self.count["requests"] += 1
        self.count["local"] += known
        self.count["computed"] += len(said) - known
        usage = {"prompt_tokens": len(said), "completion_tokens": body["max_tokens"]}
        return {"model": "m", "choices": [{"message": {"content": ""}}], "usage": usage}

    def _stream(self, body: dict[str, Any]) -> Iterator[str]:
        prompt, wanted = body["prompt"], body["max_tokens"]
        tokens = len(prompt)
        whole = (tokens - 1) // CHUNK * CHUNK
        self.count["requests"] += 1 + self.extra_requests
        if self.connected:
            self.count["queries"] += tokens
        hit = 0
        if prompt in self.local:
            self.count["local"] += whole
        elif whole and prompt in self.l1:
            self.count["l1"] += whole
            hit = whole
        elif whole and prompt in self.site.stored and self.loads:
            self.count["l2"] += whole
            self.count["loaded"] += whole // CHUNK
            hit = whole
        self.count["hits"] += hit
        self.count["transferred"] += hit
        self.count["computed"] += tokens - hit
        if whole and self.connected and not hit:
            self.count["submitted"] += whole // CHUNK
            self.l1.add(prompt)
            if self.stores:
                self.count["completed"] += whole // CHUNK
                self.site.stored.add(prompt)
        self.local.add(prompt)
        for _ in range(wanted):
            choice = {"token_ids": [self.output], "logprobs": {"token_logprobs": [-self.output / 10]}}
            yield json.dumps({"choices": [choice]})
        yield json.dumps({"choices": [], "usage": {"prompt_tokens": tokens, "completion_tokens": wanted}})
        yield "[DONE]"

    def engine_metrics(self, body: dict[str, Any]) -> str:
        c, of = self.count, 'model_name="m",engine="0"'
        return f"""# HELP vllm:request_success_total x
vllm:request_success_total{{{of},finished_reason="length"}} {c["requests"]}.0
vllm:external_prefix_cache_queries_total{{{of}}} {c["queries"]}.0
vllm:external_prefix_cache_hits_total{{{of}}} {c["hits"]}.0
vllm:prompt_tokens_by_source_total{{{of},source="local_compute"}} {c["computed"]}.0
vllm:prompt_tokens_by_source_total{{{of},source="local_cache_hit"}} {c["local"]}.0
vllm:prompt_tokens_by_source_total{{{of},source="external_kv_transfer"}} {c["transferred"]}.0
"""

    def cache_metrics(self, body: dict[str, Any]) -> str:
        c = self.count
        return f"""lmcache_mp_lookup_hit_l1_tokens_total{{model_name="/m"}} {c["l1"]}.0
lmcache_mp_lookup_hit_l2_tokens_total{{model_name="/m"}} {c["l2"]}.0
lmcache_mp_l2_prefetch_load_completed_chunks_total {c["loaded"]}.0
lmcache_mp_l2_store_submitted_objects_chunks_total {c["submitted"]}.0
lmcache_mp_l2_store_completed_objects_chunks_total {c["completed"]}.0
lmcache_mp_l2_store_adapters{{state="active"}} 1.0
lmcache_mp_l1_memory_usage_bytes{{backend="dram"}} {len(self.l1) * 1000}.0
"""


class Site:
    """Started fakes and the cluster model that describes them. `stored` is what the stores hold."""

    def __init__(self, state_dir: Path, nodes: int = 2) -> None:
        self.document = documents.cluster(state_dir, nodes)
        self.stored: set[str] = set()
        self.nodes = {node["name"]: FakeNode(self, node["name"]) for node in self.document["nodes"]}
        self.resp: dict[str, RespServer] = {}
        self.engine: dict[str, WebServer] = {}
        self.cache: dict[str, WebServer] = {}
        self.router = WebServer()
        self.router_metrics = ROUTER_METRICS
        self._stack = ExitStack()

    @property
    def cluster(self) -> Cluster:
        return parse(self.document)

    @property
    def addresses(self) -> list[str]:
        """Where its stores listen."""
        stores = (store for node in self.document["nodes"] for store in node["stores"])
        return [f"{store['host']}:{store['port']}" for store in stores]

    @property
    def shells(self) -> dict[str, FakeShell]:
        return {name: node.shell for name, node in self.nodes.items()}

    def context(self, name: str = "node1", alone: bool = False) -> NodeContext:
        """The context of a node, its peer the next node in the ring."""
        cluster = self.cluster
        index = [node.name for node in cluster.nodes].index(name)
        other = cluster.nodes[(index + 1) % len(cluster.nodes)]
        peer = None if alone or other.name == name else Peer(other, self.nodes[other.name].shell)
        return NodeContext(cluster, cluster.node(name), self.nodes[name].shell, peer, 5)

    def __enter__(self) -> Site:
        self._stack.enter_context(self.router)
        for node in self.document["nodes"]:
            self._start(node)
        self._route_router()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def _start(self, node: dict[str, Any]) -> None:
        name, host = node["name"], node["ssh"]["host"]
        fake = self.nodes[name]
        store = self.resp[name] = self._stack.enter_context(RespServer("secret-pw"))
        engine = self.engine[name] = self._stack.enter_context(WebServer())
        cache = self.cache[name] = self._stack.enter_context(WebServer())
        for shell in self.shells.values():
            shell.ports[host, 6666] = store.port
            shell.ports[host, 8000] = engine.port
            shell.ports[host, 9000] = self.router.port
        fake.shell.ports["127.0.0.1", 8090] = cache.port
        fake.shell.ports["127.0.0.1", 9100] = self.router.port
        engine.routes = {
            "/health": lambda body: "",
            "/version": lambda body: {"version": "0.31.0"},
            "/v1/models": lambda body: {"data": [{"id": "m", "max_model_len": 8192}]},
            "/tokenize": lambda body: {"count": len(body["prompt"])},
            "/v1/completions": fake.completions,
            "/metrics": fake.engine_metrics,
        }
        cache.routes = {
            "/healthcheck": lambda body: {"status": "healthy"},
            "/status": lambda body: {
                "is_healthy": True,
                "chunk_size": CHUNK,
                "storage_manager": {"l2_adapters": [documents.l2_adapter(self.addresses)], **documents.l1()},
                "registered_gpu_ids": [],
                "registered_non_cuda_instance_ids": [1],
            },
            "/metrics": fake.cache_metrics,
        }
        fake.shell.answers = {
            "sh -c . /etc/os-release": "Debian 12\n6.1.0\n/opt/kvstrata/releases/r1\n",
            "sh -c cd /etc/kvstrata": "digest-of-etc  -",
            "sh -c for file": nodes.files({"/etc/kvstrata/kvrocks/d0.conf": store.conf}),
            "sh -c \nunit=$1; shift": nodes.probe(),
            "sh -c \nfor unit in": engines.process(),
            "python3 -c": lambda argv: json.dumps(fake.files),
            "readlink": "/opt/kvstrata/releases/r1",
            "systemctl show": fake.show_units,
            "systemctl cat": "[Unit]",
            "systemctl restart": fake.restart,
            "findmnt": json.dumps(FINDMNT),
            **fake.host.answers(),
        }

    def _route_router(self) -> None:
        urls = [f"http://{node['ssh']['host']}:8000" for node in self.document["nodes"]]
        self.router.routes = {
            "/health": lambda body: "",
            "/v1/models": lambda body: {"data": [{"id": "m"}]},
            "/metrics": lambda body: self.router_metrics,
            "/workers": lambda body: {"workers": [{"url": url, "is_healthy": True} for url in urls]},
            "/v1/chat/completions": self._chat,
            "/v1/completions": lambda body: self._keeper(body["prompt"]).completions(body),
        }

    def _chat(self, body: dict[str, Any]) -> object:
        return self._keeper(body["messages"][0]["content"]).chat(body)

    def _keeper(self, start: str) -> FakeNode:
        """The node that has what begins so."""
        nodes = list(self.nodes.values())
        return nodes[zlib.crc32(start.encode()) % len(nodes)]


__all__ = ["CHUNK", "FINDMNT", "Code", "FakeNode", "Site"]
