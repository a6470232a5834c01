"""What LMCache's daemon and the stores are given: as the roles render it, but for what a configuration varies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kvstrata.bench.serving.configurations import POC, Configuration
from kvstrata.bench.serving.model import Json
from kvstrata.bench.sizes import GIB
from kvstrata.kvrocks.config import directives
from kvstrata.l2.config import TierConfig
from kvstrata.l2.policy import make_policy

RESP_WORKERS = 8
"""LMCache's own default."""

# kvrocks_workers and kvrocks_malloc_conf of roles/kvrocks.
_WORKERS = 8
MALLOC_CONF = "oversize_threshold:0,dirty_decay_ms:60000,muzzy_decay_ms:60000,background_thread:true"
# The proof of concept's: everything else was Kvrocks' default, the allocator's too.
_POC_DIRECTIVES = {"workers": "32", "rocksdb.compression": "lz4"}


@dataclass(frozen=True)
class StorePlace:
    """Where one store listens, and what its chunks may take."""

    host: str
    port: int
    capacity_gib: float
    node: str = "local"

    @property
    def name(self) -> str:
        """host:port, the endpoint's name."""
        return f"{self.host}:{self.port}"


def role_flags(l1_gib: float, chunk_tokens: int, port: int, http_port: int) -> dict[str, Json]:
    """Return the flags of `lmcache server` as roles/lmcache renders them."""
    return {
        "--host": "127.0.0.1",
        "--port": port,
        "--http-host": "127.0.0.1",
        "--http-port": http_port,
        "--l1-size-gb": l1_gib,
        "--eviction-policy": "LRU",
        "--eviction-trigger-watermark": 0.9,
        "--eviction-ratio": 0.1,
        "--l2-prefetch-policy": "retain",
        "--l2-prefetch-max-in-flight": 32,
        "--worker-reap-timeout-seconds": 45,
        "--chunk-size": chunk_tokens,
        "--supported-transfer-mode": "auto",
    }


def role_l2(
    identity: Mapping[str, Json], namespace: str, node: str, stores: Sequence[StorePlace], min_load_gbps: float
) -> dict[str, Json]:
    """Return what kvstrata.l2 is told as roles/lmcache renders it, with the role's defaults."""
    return {
        "namespace": namespace,
        "identity": dict(identity),
        "local_node": node,
        "placement": "fleet",
        "stripe_width": 1,
        "policy": {"name": "all"},
        "min_load_gbps": min_load_gbps,
        "endpoints": [
            {"host": s.host, "port": s.port, "node": s.node, "capacity_bytes": int(s.capacity_gib * GIB)}
            for s in stores
        ],
    }


def l2_changes(configuration: Configuration) -> dict[str, Json]:
    """Return the fields of kvstrata.l2 that a configuration sets, wherever that is."""
    return {
        "piece_bytes": configuration.piece_bytes,
        "load_connections": configuration.connections,
        "min_load_gbps": configuration.min_load_gbps,
        **configuration.l2,
    }


def server(
    configuration: Configuration,
    port: int,
    http_port: int,
    stores: Sequence[StorePlace],
    namespace: str,
    identity: Mapping[str, Json],
) -> dict[str, Json]:
    """Return server.json, which kvstrata.node.lmcache_server takes.

    Raises:
        ValueError: kvstrata.l2 refuses what the configuration sets; it names the field and what is allowed.
    """
    flags = role_flags(configuration.l1_gib, configuration.chunk_tokens, port, http_port)
    l2: dict[str, Json] | None = None
    if configuration.stores == "kvstrata":
        l2 = role_l2(identity, namespace, "local", stores, configuration.min_load_gbps) | l2_changes(configuration)
        make_policy(**TierConfig.from_dict(l2).policy)
    elif configuration.stores == "resp":
        flags["--l2-adapter"] = json.dumps(resp_adapter(configuration, stores[0]))
    return {"flags": flags, "l2": l2}


def resp_adapter(configuration: Configuration, store: StorePlace) -> dict[str, Json]:
    """Return the description of LMCache's `resp` adapter; it knows one store."""
    workers = configuration.connections or RESP_WORKERS
    return {"type": "resp", "host": store.host, "port": store.port, "num_workers": workers}


def kvrocks(profile: str) -> dict[str, str]:
    """Return the directives of a profile, each as CONFIG GET reports it."""
    return dict(_POC_DIRECTIVES) if profile == POC else directives(profile, _WORKERS, {})


def kvrocks_environment(profile: str) -> dict[str, str]:
    """Return what the environment of a store has beside what it inherits."""
    return {} if profile == POC else {"MALLOC_CONF": MALLOC_CONF}
