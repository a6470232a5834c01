"""The document of a site of many nodes, as playbooks/describe.yml renders one, on loopback addresses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PASSWORD = "secret-pw"
CHUNK = 256
STORE_PORT, TLS_PORT, ENGINE_PORT, ROUTER_PORT = 6666, 6667, 8000, 9000
ZMQ_PORT, HTTP_PORT = 5555, 8090
L1_GIB = 64.0
CAPACITY_BYTES = 800 << 30
DEVICE = "/dev/disk/by-id/nvme-SIMULATED_{index:04d}"
ROUTERS = 2
EDGE_PORT, VIRTUAL, API_KEY, EDGE_AUTHORITY = 8443, "127.77.250.1", "key-of-the-team", "edge-ca.pem"
AUTHORITY = "/etc/kvstrata/tls/ca.pem"


def address(index: int) -> str:
    """The address of the node number `index`, counted from 1; every one of 127.0.0.0/8 is this machine's own."""
    return f"127.77.{index // 200}.{index % 200 + 1}"


def document(folder: Path, nodes: int, ssh_port: int, timeout_s: float = 60, tls: bool = True) -> dict[str, Any]:
    """A site of `nodes` nodes; the first two have routers and an edge.

    `folder` holds keys, known_hosts and the site's state.
    """
    return {
        "schema": 2,
        "site": "simulated",
        "profile": "router",
        "accelerator": "cpu",
        "edge": {
            "port": EDGE_PORT,
            "plaintext": False,
            "ca": str(folder / EDGE_AUTHORITY),
            "names": [address(index) for index in range(1, min(nodes, ROUTERS) + 1)] + [VIRTUAL],
            "keys": [{"name": "team", "value": API_KEY}],
            "virtual_address": VIRTUAL,
        },
        "firewall": None,
        "model": {
            "name": "m",
            "path": "/srv/models/m",
            "revision": "r1",
            "max_model_len": 8192,
            "dtype": "float32",
        },
        "nodes": [_node(folder, index, ssh_port, tls) for index in range(1, nodes + 1)],
        "verify": {
            "tiers": "if_changed",
            "prompt_tokens": 1024,
            "timeout_s": timeout_s,
            "state_dir": str(folder / "state"),
        },
    }


def _node(folder: Path, index: int, ssh_port: int, tls: bool) -> dict[str, Any]:
    host = address(index)
    routes = index <= ROUTERS
    bind, interleave = ({"policy": policy, "node": None, "cpus": None} for policy in ("bind", "interleave"))
    return {
        "name": f"node{index}",
        "ssh": {
            "host": host,
            "port": ssh_port,
            "user": "root",
            "key": str(folder / "key"),
            "known_hosts": str(folder / "known_hosts"),
            "become": False,
        },
        "units": [
            "kvrocks@d0.service",
            "lmcache.service",
            "vllm@0.service",
            *(["vllm-router.service", "kvstrata-edge.service", "kvstrata-keepalived.service"] if routes else []),
        ],
        "mounts": [{"path": "/var/lib/kvstrata/drives/d0", "fstype": "xfs", "device": DEVICE.format(index=index)}],
        "stores": [
            {
                "drive": "d0",
                "unit": "kvrocks@d0.service",
                "engine": "kvrocks",
                "host": host,
                "port": STORE_PORT,
                "password": PASSWORD,
                "tier": "ssd",
                "capacity_bytes": CAPACITY_BYTES,
                "config_path": "/etc/kvstrata/kvrocks/d0.conf",
                "numa": bind,
            }
            | ({"tls_port": TLS_PORT, "tls_ca": AUTHORITY} if tls else {}),
        ],
        "lmcache": {
            "unit": "lmcache.service",
            "zmq_port": ZMQ_PORT,
            "http_port": HTTP_PORT,
            "chunk_size": CHUNK,
            "l1_gib": L1_GIB,
            "namespace": "kvs-0123456789abcdef",
            "numa": interleave,
        },
        "engines": [
            {
                "unit": "vllm@0.service",
                "host": host,
                "port": ENGINE_PORT,
                "server": "openai",
                "rpc_port": None,
                "event_port": None,
                "numa": bind,
            },
        ],
        "router": {
            "unit": "vllm-router.service",
            "host": host,
            "port": ROUTER_PORT,
            "kind": "vllm-router",
            "policy": "cache_aware",
            "metrics_host": "127.0.0.1",
            "metrics_port": 9100,
        }
        if routes
        else None,
        "edge": {"unit": "kvstrata-edge.service", "host": host, "vrrp_unit": "kvstrata-keepalived.service"}
        if routes
        else None,
        "etcd": None,
    }
