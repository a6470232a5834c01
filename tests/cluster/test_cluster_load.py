"""The cluster model from JSON: what it keeps, and which errors name which place."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from kvstrata.cluster import (
    InvalidClusterError,
    Numa,
    Profile,
    RouterKind,
    StoreEngine,
    Tier,
    TiersPolicy,
    load,
    parse,
)

DOCUMENT: dict[str, Any] = {
    "schema": 2,
    "site": "lab",
    "profile": "router",
    "accelerator": "cpu",
    "edge": None,
    "firewall": None,
    "model": {"name": "m", "path": "/srv/models/m", "max_model_len": 8192, "dtype": "float32"},
    "nodes": [
        {
            "name": "node1",
            "ssh": {
                "host": "10.0.0.1",
                "port": 22,
                "user": "root",
                "key": "~/key",
                "known_hosts": None,
                "become": False,
            },
            "units": ["kvrocks@d0.service", "lmcache.service"],
            "mounts": [{"path": "/drives/d0", "fstype": "xfs"}],
            "stores": [
                {
                    "drive": "d0",
                    "unit": "kvrocks@d0.service",
                    "engine": "kvrocks",
                    "host": "10.1.0.1",
                    "port": 6666,
                    "password": "hush-hush",
                    "tier": "ssd",
                    "capacity_bytes": 1 << 30,
                }
            ],
            "lmcache": {
                "unit": "lmcache.service",
                "zmq_port": 5555,
                "http_port": 8090,
                "chunk_size": 256,
                "namespace": "kvs-0123456789abcdef",
            },
            "engines": [
                {
                    "unit": "vllm@0.service",
                    "host": "10.1.0.1",
                    "port": 8000,
                    "server": "openai",
                    "rpc_port": None,
                    "event_port": None,
                }
            ],
            "router": {
                "unit": "vllm-router.service",
                "host": "10.1.0.1",
                "port": 9000,
                "kind": "vllm-router",
                "policy": "cache_aware",
                "metrics_host": "127.0.0.1",
                "metrics_port": 9100,
            },
            "edge": None,
            "etcd": None,
        }
    ],
    "verify": {"tiers": "if_changed", "prompt_tokens": 4096, "timeout_s": 300, "state_dir": "~/state"},
}


def changed(path: str, value: object) -> dict[str, Any]:
    """The document with the value at a path such as `nodes.0.ssh.port` replaced, or removed for ..."""
    document = copy.deepcopy(DOCUMENT)
    at: Any = document
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parents:
        at = at[part]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return document


def test_a_whole_document_becomes_a_cluster() -> None:
    cluster = parse(DOCUMENT)
    node = cluster.node("node1")
    assert node.ssh.key == Path("~/key").expanduser()
    assert node.ssh.known_hosts is None
    assert (node.stores[0].engine, node.stores[0].tier) == (StoreEngine.KVROCKS, Tier.SSD)
    assert node.stores[0].address == "10.1.0.1:6666"
    assert node.fabric_host == "10.1.0.1"
    assert cluster.engines[0].url == "http://10.1.0.1:8000"
    assert cluster.verify.tiers is TiersPolicy.IF_CHANGED
    assert cluster.verify.state_dir == Path("~/state").expanduser()


def test_a_node_without_listeners_is_known_by_its_ssh_address() -> None:
    document = changed("nodes.0.stores", [])
    document["nodes"][0] |= {"engines": [], "router": None, "lmcache": None}
    assert parse(document).nodes[0].fabric_host == "10.0.0.1"


def test_a_site_has_each_namespace_of_its_nodes_once() -> None:
    document = copy.deepcopy(DOCUMENT)
    document["nodes"] = [copy.deepcopy(DOCUMENT["nodes"][0]) | {"name": f"node{index}"} for index in range(4)]
    document["nodes"][1]["lmcache"]["namespace"] = "kvs-other"
    document["nodes"][2]["lmcache"]["namespace"] = None
    document["nodes"][3]["lmcache"] = None
    assert parse(document).namespaces == ("kvs-0123456789abcdef", "kvs-other")


def test_limits_load_and_prices_are_the_inventorys_where_it_sets_them() -> None:
    document = copy.deepcopy(DOCUMENT) | {"prices": {"gpu_hour": 2.5}}
    document["verify"] |= {
        "limits": {"clock_skew_s": 2},
        "throughput": {"requests": 4, "max_ttft_p95_s": 1.5, "max_itl_p50_s": None},
    }
    site = parse(document)
    assert (site.verify.limits.clock_skew_s, site.verify.limits.drive_share) == (2.0, 0.5)
    assert (site.verify.throughput.requests, site.verify.throughput.concurrency) == (4, 8)
    assert (site.verify.throughput.max_ttft_p95_s, site.verify.throughput.max_itl_p50_s) == (1.5, None)
    assert site.prices is not None
    assert (site.prices.gpu_hour, site.prices.currency) == (2.5, "USD")


def test_an_unknown_node_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        parse(DOCUMENT).node("node9")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema", 1, "schema: 1, this version of kvstrata reads 2"),
        ("nodes", [], "nodes: empty"),
        ("nodes", {}, "nodes: expected a list, got an object"),
        ("nodes.0.ssh.port", ..., r"nodes\[0\]\.ssh\.port: missing"),
        ("nodes.0.ssh.port", 70000, r"nodes\[0\]\.ssh\.port: 70000, allowed is 1\.\.65535"),
        ("nodes.0.ssh.port", "22", r"nodes\[0\]\.ssh\.port: expected a whole number, got a string"),
        ("nodes.0.ssh.port", True, r"nodes\[0\]\.ssh\.port: expected a whole number, got bool"),
        ("nodes.0.ssh.become", "yes", r"nodes\[0\]\.ssh\.become: expected true or false"),
        ("nodes.0.ssh", None, r"nodes\[0\]\.ssh: expected an object, got null"),
        ("nodes.0.units.1", "", r"nodes\[0\]\.units\[1\]: empty"),
        ("nodes.0.stores.0.engine", "rocks", r"stores\[0\]\.engine: 'rocks', allowed is one of kvrocks, redis"),
        ("nodes.0.stores.0.password", "", r"nodes\[0\]\.stores\[0\]\.password: empty"),
        ("nodes.0.lmcache.chunk_size", 0, r"lmcache\.chunk_size: 0, allowed is at least 1"),
        ("nodes.0.lmcache.namespace", ..., r"lmcache\.namespace: missing"),
        ("nodes.0.lmcache.namespace", "", r"lmcache\.namespace: empty"),
        ("nodes.0.stores.0.capacity_bytes", 0, r"stores\[0\]\.capacity_bytes: 0, allowed is at least 1"),
        ("verify.timeout_s", 0, r"verify\.timeout_s: 0, allowed is more than 0"),
        ("verify.tiers", "maybe", r"verify\.tiers: 'maybe', allowed is one of if_changed, always, never"),
        ("model", ..., "model: missing"),
        ("verify.limits", {"skew": 1}, r"verify\.limits\.skew: unknown, allowed are certificate_days, clock_skew_s"),
        ("verify.limits", {"drive_share": 1.5}, r"verify\.limits\.drive_share: 1\.5, allowed is 0 to 1"),
        ("verify.throughput", {"requests": 0}, r"verify\.throughput\.requests: 0, allowed is at least 1"),
        ("verify.throughput", {"max_ttft_p50_s": 0}, r"max_ttft_p50_s: 0, allowed is more than 0"),
        ("prices", {"currency": "EUR"}, r"prices\.gpu_hour: missing"),
    ],
)
def test_a_wrong_value_is_named_with_its_path(path: str, value: object, message: str) -> None:
    with pytest.raises(InvalidClusterError, match=message):
        parse(changed(path, value))


def test_two_nodes_of_one_name_are_refused() -> None:
    document = copy.deepcopy(DOCUMENT)
    document["nodes"] *= 2
    with pytest.raises(InvalidClusterError, match=r"nodes\[1\]\.name: 'node1' is nodes\[0\] already"):
        parse(document)


def test_a_document_that_is_no_object_is_refused() -> None:
    with pytest.raises(InvalidClusterError, match="document: expected an object, got a list"):
        parse([])


def test_a_password_of_the_wrong_kind_is_not_quoted_in_the_error() -> None:
    with pytest.raises(InvalidClusterError) as caught:
        parse(changed("nodes.0.stores.0.password", ["hush-hush"]))
    assert "hush-hush" not in str(caught.value)


def test_no_representation_shows_a_password() -> None:
    cluster = parse(DOCUMENT)
    assert "hush-hush" not in repr(cluster)
    assert "hush-hush" in str(asdict(cluster))


def test_a_file_is_read_and_a_bad_one_is_named(tmp_path: Path) -> None:
    good, broken = tmp_path / "good.json", tmp_path / "broken.json"
    good.write_text(json.dumps(DOCUMENT))
    broken.write_text("{")
    assert load(good) == parse(DOCUMENT)
    with pytest.raises(InvalidClusterError, match=r"broken\.json: not JSON"):
        load(broken)
    with pytest.raises(InvalidClusterError, match=r"missing\.json: No such file"):
        load(tmp_path / "missing.json")


def test_a_document_that_says_nothing_of_sizes_has_defaults() -> None:
    cluster = parse(copy.deepcopy(DOCUMENT))
    cache = cluster.nodes[0].lmcache
    assert cache
    assert (cache.l1_gib, cache.min_load_gbps, cache.policy) == (None, 0.0, {"name": "all"})
    assert (cluster.model.kv_dtype, cluster.model.tensor_parallel, cluster.nodes[0].gpus) == ("auto", 1, 0)


def test_sizes_and_types_are_read_where_they_are_given() -> None:
    document = copy.deepcopy(DOCUMENT)
    document["model"] |= {"kv_dtype": "fp8", "tensor_parallel": 4}
    document["nodes"][0]["gpus"] = 8
    document["nodes"][0]["lmcache"] |= {"l1_gib": 1.5, "min_load_gbps": 4, "policy": {"name": "second_use"}}
    cluster = parse(document)
    cache = cluster.nodes[0].lmcache
    assert cache
    assert (cache.l1_gib, cache.min_load_gbps, cache.policy) == (1.5, 4.0, {"name": "second_use"})
    assert (cluster.model.kv_dtype, cluster.model.tensor_parallel, cluster.nodes[0].gpus) == ("fp8", 4, 8)


def test_where_services_are_to_run_is_read_where_it_is_given() -> None:
    document = copy.deepcopy(DOCUMENT)
    node = document["nodes"][0]
    assert parse(document).nodes[0].stores[0].numa is None
    node["stores"][0]["numa"] = {"policy": "preferred", "node": 1, "cpus": "0-3,8"}
    node["engines"][0]["numa"] = {"policy": "none"}
    found = parse(document).nodes[0]
    assert found.stores[0].numa == Numa("preferred", 1, "0-3,8")
    assert found.engines[0].numa == Numa("none")
    node["engines"][0]["numa"] = {"policy": ""}
    with pytest.raises(InvalidClusterError, match=r"nodes\[0\].engines\[0\].numa.policy: empty"):
        parse(document)


@pytest.mark.parametrize(("field", "value"), [("l1_gib", -1), ("min_load_gbps", "fast"), ("policy", "all")])
def test_a_wrong_size_or_policy_is_named(field: str, value: object) -> None:
    document = copy.deepcopy(DOCUMENT)
    document["nodes"][0]["lmcache"][field] = value
    with pytest.raises(InvalidClusterError, match=rf"nodes\[0\].lmcache.{field}: "):
        parse(document)


def with_edge() -> dict[str, Any]:
    document = copy.deepcopy(DOCUMENT)
    document["edge"] = {
        "port": 8443,
        "plaintext": False,
        "ca": "~/state/ca.pem",
        "names": ["10.1.0.1"],
        "keys": [{"name": "team", "value": "hush-hush-key"}],
        "virtual_address": "10.1.0.100",
    }
    document["firewall"] = {"unit": "kvstrata-firewall.service", "client_networks": ["10.2.0.0/16"]}
    second = copy.deepcopy(document["nodes"][0]) | {"name": "node2"}
    document["nodes"].append(second)
    for node in document["nodes"]:
        node["edge"] = {"unit": "kvstrata-edge.service", "host": "10.1.0.1", "vrrp_unit": None}
    second["router"] = {**second["router"], "host": "10.1.0.2"}
    return document


def test_a_site_may_have_several_routers_and_an_edge_before_them() -> None:
    cluster = parse(with_edge())
    assert [router.url for router in cluster.routers] == ["http://10.1.0.1:9000", "http://10.1.0.2:9000"]
    assert cluster.edge is not None
    assert cluster.edge.ca == Path("~/state/ca.pem").expanduser()
    assert cluster.edge.keys[0].name == "team"
    assert "hush-hush-key" not in repr(cluster)
    assert cluster.firewall is not None
    assert cluster.firewall.client_networks == ("10.2.0.0/16",)


def test_a_site_of_dynamo_says_so_of_its_engines_routers_and_etcd() -> None:
    document = changed("profile", "dynamo")
    node = document["nodes"][0]
    node["engines"][0]["server"] = "dynamo"
    node["router"] |= {"kind": "dynamo-frontend", "policy": "kv"}
    folder = "/etc/kvstrata/etcd"
    files = {"ca": f"{folder}/ca.pem", "certificate": f"{folder}/client.pem", "key": f"{folder}/client.key"}
    node["etcd"] = {"unit": "kvstrata-etcd.service", "host": "10.1.0.1", "port": 2379, **files}
    cluster = parse(document)
    assert cluster.profile is Profile.DYNAMO
    assert cluster.engines[0].of_dynamo
    assert cluster.routers[0].kind is RouterKind.DYNAMO
    assert cluster.nodes[0].etcd is not None
    assert cluster.nodes[0].etcd.url == "https://10.1.0.1:2379"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("profile", "cuda", "profile: 'cuda', allowed is one of router, dynamo"),
        ("nodes.0.engines.0.server", "sglang", "allowed is one of openai, dynamo, mocker"),
        ("nodes.0.router.kind", "nginx", "allowed is one of vllm-router, dynamo-frontend"),
        ("nodes.0.router.policy", ..., r"nodes\[0\]\.router\.policy: missing"),
        ("edge", {"port": 0}, "edge.port: 0, allowed is 1..65535"),
        ("firewall", {"unit": "f"}, "firewall.client_networks: missing"),
    ],
)
def test_what_serves_the_site_is_read_as_strictly_as_the_rest(path: str, value: object, message: str) -> None:
    with pytest.raises(InvalidClusterError, match=message):
        parse(changed(path, value))
