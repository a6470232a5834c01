"""LMCache's HTTP API on a node, with the adapter kvstrata.l2 over every store of the site."""

from __future__ import annotations

from typing import Any

from kvstrata.verify.layers.cache.state import places
from tests.verify.fakes import documents
from tests.verify.simulated.caches import Caches
from tests.verify.simulated.inventory import L1_GIB
from tests.verify.simulated.state import Machine
from tests.verify.simulated.web import Answer, Request, Route


class FakeLMCache:
    """The node's cache server."""

    def __init__(self, machine: Machine, caches: Caches) -> None:
        self._machine, self._caches = machine, caches
        self.down = False

    def routes(self) -> dict[str, Route]:
        """Its HTTP API."""
        return {
            "/healthcheck": lambda _: {"status": "healthy"},
            "/status": lambda _: self._status(),
            "/metrics": self._metrics,
        }

    def _status(self) -> dict[str, Any]:
        told = self._machine.node.lmcache
        return {
            "is_healthy": True,
            "engine_type": "MPCacheEngine",
            "chunk_size": 0 if told is None else told.chunk_size,
            "storage_manager": {"l2_adapters": [self._adapter()], **documents.l1(L1_GIB)},
            "registered_gpu_ids": [],
            "registered_non_cuda_instance_ids": list(range(len(self._engines()))),
        }

    def _engines(self) -> list[str]:
        return [engine.unit for engine in self._machine.node.engines] if self._machine.state.connector else []

    def _adapter(self) -> dict[str, Any]:
        known, namespace = places(self._machine.cluster), self._machine.namespace
        adapter = documents.l2_adapter(list(known)) | {"namespace": namespace}
        for name, place in known.items():
            used = place.store.capacity_bytes // 4
            told = {"capacity_bytes": place.store.capacity_bytes, "used_bytes": used, "namespaces": {namespace: used}}
            expired = self._machine.site.nodes[place.node.name].certificate_days < 0
            mine = place.node is self._machine.node
            if expired or (mine and self._machine.state.given_up):
                why = "certificate has expired" if expired else "timed out"
                told |= {"up": False, "breaker": "open", "breaker_opened": 1, "last_failure": why}
            adapter["endpoints"][name] |= told
        return adapter

    def _metrics(self, _: Request) -> Answer:
        c, of = self._caches.count, f'model_name="{self._machine.cluster.model.path}"'
        return f"""lmcache_mp_lookup_hit_l1_tokens_total{{{of}}} {c["l1"]}.0
lmcache_mp_lookup_hit_l2_tokens_total{{{of}}} {c["l2"]}.0
lmcache_mp_l2_prefetch_load_completed_chunks_total {c["loaded"]}.0
lmcache_mp_l2_store_submitted_objects_chunks_total {c["submitted"]}.0
lmcache_mp_l2_store_completed_objects_chunks_total {c["completed"]}.0
lmcache_mp_l2_store_adapters{{state="active"}} 1.0
lmcache_mp_l1_memory_usage_bytes{{backend="dram"}} {len(self._caches.l1) * 1000}.0
"""
