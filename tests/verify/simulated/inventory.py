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
ROUTERS, MEMBERS = 2, 3
RPC_PORT, EVENT_PORT, ETCD_PORT = 9200, 20080, 2379
ETCD_FILES = {"ca": "ca.pem", "certificate": "client.pem", "key": "client.key"}
EDGE_PORT, VIRTUAL, API_KEY, EDGE_AUTHORITY = 8443, "127.77.250.1", "key-of-the-team", "edge-ca.pem"
AUTHORITY = "/etc/kvstrata/tls/ca.pem"


def address(index: int) -> str:
    """The address of the node number `index`, counted from 1; every one of 127.0.0.0/8 is this machine's own."""
    return f"127.77.{index // 200}.{index % 200 + 1}"


def document(
    folder: Path, nodes: int, ssh_port: int, timeout_s: float = 60, tls: bool = True, profile: str = "router"
) -> dict[str, Any]:
    """A site of `nodes` nodes; the first two have routers and an edge.

    `folder` holds keys, known_hosts and the site's state.
    """
    return {
        "schema": 2,
        "site": "simulated",
        "profile": profile,
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
        "nodes": [_node(folder, index, ssh_port, tls, profile) for index in range(1, nodes + 1)],
        "verify": {
            "tiers": "if_changed",
            "prompt_tokens": 1024,
            "timeout_s": timeout_s,
            "state_dir": str(folder / "state"),
        },
    }


def _node(folder: Path, index: int, ssh_port: int, tls: bool, profile: str) -> dict[str, Any]:
    host = address(index)
    routes = index <= ROUTERS
    of_dynamo = profile == "dynamo"
    router = _router(host, of_dynamo)
    etcd = _etcd(host) if of_dynamo and index <= MEMBERS else None
    served = {"server": "dynamo", "rpc_port": RPC_PORT, "event_port": EVENT_PORT}
    if not of_dynamo:
        served = {"server": "openai", "rpc_port": None, "event_port": None}
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
            *(["kvstrata-etcd.service"] if etcd else []),
            *([router["unit"], "kvstrata-edge.service", "kvstrata-keepalived.service"] if routes else []),
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
            {"unit": "vllm@0.service", "host": host, "port": ENGINE_PORT, "numa": bind, **served},
        ],
        "router": router if routes else None,
        "edge": {"unit": "kvstrata-edge.service", "host": host, "vrrp_unit": "kvstrata-keepalived.service"}
        if routes
        else None,
        "etcd": etcd,
    }


def _router(host: str, of_dynamo: bool) -> dict[str, Any]:
    if of_dynamo:
        kind, policy, at = "dynamo-frontend", "kv", (host, ROUTER_PORT)
    else:
        kind, policy, at = "vllm-router", "cache_aware", ("127.0.0.1", 9100)
    named = {"unit": f"{kind}.service", "kind": kind, "policy": policy}
    return {**named, "host": host, "port": ROUTER_PORT, "metrics_host": at[0], "metrics_port": at[1]}


def _etcd(host: str) -> dict[str, Any]:
    files = {name: f"/etc/kvstrata/etcd/{file}" for name, file in ETCD_FILES.items()}
    return {"unit": "kvstrata-etcd.service", "host": host, "port": ETCD_PORT, **files}
