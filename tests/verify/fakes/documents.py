"""Cluster documents as Ansible renders them."""

from __future__ import annotations

from pathlib import Path
from typing import Any


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
            "namespace": "kvs-0123456789abcdef",
        },
        "engines": [{"unit": "vllm@0.service", "host": host, "port": 8000}],
        "router": {"unit": "vllm-router.service", "host": host, "port": 9000} if index == 1 else None,
    }


def cluster(state_dir: Path | str = "/state", nodes: int = 2) -> dict[str, Any]:
    return {
        "schema": 1,
        "site": "test",
        "profile": "cpu",
        "model": {"name": "m", "path": "/srv/models/m", "max_model_len": 8192, "dtype": "float32"},
        "nodes": [node(f"node{index}", index) for index in range(1, nodes + 1)],
        "verify": {"tiers": "never", "prompt_tokens": 1024, "timeout_s": 5, "state_dir": str(state_dir)},
    }


def l2_adapter(**first: Any) -> dict[str, Any]:
    """What LMCache reports of kvstrata.l2 with two stores; `first` changes what it says of the first."""
    store = {"up": True, "last_failure": "", "used_bytes": 1 << 28, "capacity_bytes": 1 << 30, "counters": {}}
    endpoints = {"10.0.0.1:6666": store | first, "10.0.0.1:6667": dict(store)}
    return {"type": "kvstrata", "is_healthy": True, "endpoints": endpoints}
