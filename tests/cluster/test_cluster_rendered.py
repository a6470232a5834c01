"""What the describe playbook renders of sites with an edge, several routers, a firewall, and Dynamo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kvstrata.cluster import Cluster, EngineServer, Profile, RouterKind, describe
from kvstrata.paths import PROJECT

NODES = 4


def rendered(folder: Path, routers: int, **variables: Any) -> Cluster:
    """A site of four nodes on CPUs, the first ones of them router hosts."""
    hosts = {
        f"node{index}": {
            "ansible_host": f"10.9.0.{10 + index}",
            "kvstrata_fabric_address": f"10.8.0.{10 + index}",
            "kvstrata_drives": [{"name": "d0", "device": f"/dev/disk/by-id/nvme-n{index}", "store_gib": 10}],
        }
        for index in range(1, NODES + 1)
    }
    site: dict[str, Any] = {
        "ansible_user": "deploy",
        "kvstrata_site": "rendered",
        "kvstrata_accelerator": "cpu",
        "kvstrata_state_dir": str(folder / "state"),
        "kvstrata_dram_cache_gib": 1,
        "kvstrata_model": {"name": "m", "path": "/m", "revision": "r", "dtype": "float32", "max_model_len": 100},
        **variables,
    }
    inventory = {
        "kvstrata": {"hosts": hosts, "vars": site},
        "router": {"hosts": {name: {} for name in list(hosts)[:routers]}},
    }
    file = folder / "hosts.yml"
    # JSON is YAML.
    file.write_text(json.dumps(inventory))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANSIBLE_HOME", str(folder / ".ansible"))
        return describe(file, root=PROJECT)


@pytest.mark.timeout(200)
def test_an_edge_is_described_with_its_names_keys_and_units(tmp_path: Path) -> None:
    cluster = rendered(
        tmp_path,
        2,
        kvstrata_edge={
            "self_signed": True,
            "api_keys": ["a", "b"],
            "virtual_address": "10.8.0.100/24",
            "names": ["llm"],
        },
        kvstrata_firewall=True,
        kvstrata_client_networks=["10.7.0.0/16"],
        router_policy="kv_aware",
    )
    assert cluster.profile is Profile.ROUTER
    assert [(router.host, router.kind, router.policy) for router in cluster.routers] == [
        ("10.8.0.11", RouterKind.VLLM_ROUTER, "kv_aware"),
        ("10.8.0.12", RouterKind.VLLM_ROUTER, "kv_aware"),
    ]
    edge = cluster.edge
    assert edge is not None
    assert (edge.port, edge.plaintext, edge.virtual_address) == (8443, False, "10.8.0.100")
    assert edge.ca == tmp_path / "state" / "tls" / "edge" / "ca.pem"
    assert edge.names == ("10.8.0.11", "10.8.0.12", "10.8.0.100", "llm")
    written = (tmp_path / "state" / "secrets" / "api-key-a").read_text().strip()
    assert [(key.name, len(key.value)) for key in edge.keys] == [("a", 40), ("b", 40)]
    assert edge.keys[0].value == written
    first, *_, last = cluster.nodes
    assert first.units[-3:] == ("vllm-router.service", "kvstrata-edge.service", "kvstrata-keepalived.service")
    assert first.edge is not None
    assert (last.router, last.edge, last.units[-1]) == (None, None, "vllm@0.service")
    assert cluster.firewall is not None
    assert cluster.firewall.client_networks == ("10.7.0.0/16",)
    assert [(engine.server, engine.rpc_port, engine.event_port) for engine in last.engines] == [
        (EngineServer.OPENAI, None, 20080)
    ]


@pytest.mark.timeout(200)
def test_a_site_of_dynamo_is_described_with_its_etcd_and_its_workers_ports(tmp_path: Path) -> None:
    own = {"tls": {"certificate": "/c.pem", "key": "/k.pem"}, "open": True, "address": "10.9.0.50"}
    cluster = rendered(tmp_path, 1, kvstrata_serving_profile="dynamo", kvstrata_edge=own, kvstrata_replicas=2)
    assert cluster.profile is Profile.DYNAMO
    (router,) = cluster.routers
    assert (router.kind, router.policy, router.unit) == (RouterKind.DYNAMO, "kv", "dynamo-frontend.service")
    assert {"dynamo-events.service", "kvstrata-etcd.service"} <= set(cluster.nodes[0].units)
    assert "dynamo-events.service" not in cluster.nodes[1].units
    assert (router.metrics_host, router.metrics_port) == ("10.8.0.11", 9000)
    assert [node.etcd is not None for node in cluster.nodes] == [True, True, True, False]
    engines = cluster.nodes[3].engines
    assert [(engine.server, engine.port, engine.rpc_port, engine.event_port) for engine in engines] == [
        (EngineServer.DYNAMO, 8000, 9200, 20080),
        (EngineServer.DYNAMO, 8001, 9201, 20081),
    ]
    edge = cluster.edge
    assert edge is not None
    # Of a certificate that is given nobody knows the names, or who signed it.
    assert (edge.ca, edge.names, edge.keys) == (None, (), ())
    assert cluster.nodes[0].edge is not None
    assert cluster.nodes[0].edge.host == "10.9.0.50"
    # The default of this profile, with an edge for clients.
    assert cluster.firewall is not None
    assert cluster.firewall.client_networks == ()
