"""Cluster documents as Ansible renders them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

NAMESPACE = "kvs-0123456789abcdef"


def node(name: str, index: int) -> dict[str, Any]:
    host = f"10.9.0.{10 + index}"
    return {
        "name": name,
        "ssh": {
            "host": host,
            "port": 22,
            "user": "root",
            "key": None,
            "known_hosts": None,
            "become": False,
        },
        "units": ["kvrocks@d0.service", "lmcache.service", "vllm@0.service"],
        "mounts": [{"path": "/drives/d0", "fstype": "xfs"}],
        "stores": [
            {
                "drive": "d0",
                "unit": "kvrocks@d0.service",
                "engine": "kvrocks",
                "host": host,
                "port": 6666,
                "password": "secret-pw",
                "tier": "ssd",
                "capacity_bytes": 1 << 30,
                "config_path": "/etc/kvstrata/kvrocks/d0.conf",
            }
        ],
        "lmcache": {
            "unit": "lmcache.service",
            "zmq_port": 5555,
            "http_port": 8090,
            "chunk_size": 256,
            "namespace": NAMESPACE,
            "l1_gib": 2.0,
        },
        "engines": [
            {
                "unit": "vllm@0.service",
                "host": host,
                "port": 8000,
                "server": "openai",
                "rpc_port": None,
                "event_port": None,
            }
        ],
        "router": {
            "unit": "vllm-router.service",
            "host": host,
            "port": 9000,
            "kind": "vllm-router",
            "policy": "cache_aware",
            "metrics_host": "127.0.0.1",
            "metrics_port": 9100,
        }
        if index == 1
        else None,
        "edge": None,
        "etcd": None,
    }


def cluster(state_dir: Path | str = "/state", nodes: int = 2) -> dict[str, Any]:
    return {
        "schema": 2,
        "site": "test",
        "profile": "router",
        "accelerator": "cpu",
        "edge": None,
        "firewall": None,
        "model": {"name": "m", "path": "/srv/models/m", "max_model_len": 8192, "dtype": "float32"},
        "nodes": [node(f"node{index}", index) for index in range(1, nodes + 1)],
        "verify": {
            "tiers": "never",
            "prompt_tokens": 1024,
            "timeout_s": 5,
            "state_dir": str(state_dir),
            "throughput": {"requests": 4, "concurrency": 2, "prompt_tokens": 64, "output_tokens": 4},
        },
    }


def l2_adapter(addresses: Sequence[str] = ("10.9.0.11:6666", "10.9.0.12:6666"), **first: Any) -> dict[str, Any]:
    """What LMCache reports of kvstrata.l2 with stores at `addresses`; `first` changes what it says of the first."""
    store = {"up": True, "breaker": "closed", "breaker_opened": 0, "last_failure": "", "counters": {}}
    store |= {"used_bytes": 1 << 28, "capacity_bytes": 1 << 30, "namespaces": {NAMESPACE: 1 << 28}}
    endpoints = {address: dict(store) for address in addresses}
    endpoints[addresses[0]] |= first
    return {"type": "kvstrata", "is_healthy": True, "namespace": NAMESPACE, "counters": {}, "endpoints": endpoints}


def l1(gib: float = 2.0, used_bytes: int = 1 << 20) -> dict[str, Any]:
    """What LMCache reports of its DRAM tier, as parts of `storage_manager`."""
    size = int(gib * (1 << 30))
    manager = {"is_healthy": True, "memory_used_bytes": used_bytes, "total_object_count": 3, "read_locked_count": 1}
    return {"l1_managers": {"cpu": manager}, "l1_capacity_bytes_by_backend": {"cpu": size}}
