"""The schedule of the faults: what is stopped where, in which order, and what a site cannot show."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kvstrata.cluster import Cluster, parse
from kvstrata.verify.faults import plan
from kvstrata.verify.faults.plan import Fault, Omitted
from tests.verify.fakes import documents

ALL = ("node1", "node2", "node3")


def made(document: dict[str, Any], names: tuple[str, ...] = ALL) -> dict[str, Fault | Omitted]:
    return {entry.id: entry for entry in plan.schedule(parse(document), names)}


def cluster(nodes: int = 2) -> dict[str, Any]:
    return documents.cluster(nodes=nodes)


def test_every_kind_of_service_is_killed_and_stopped_and_then_a_node_is_stopped() -> None:
    schedule = plan.schedule(parse(cluster()), ALL)
    assert [(entry.id, getattr(entry, "killed", None)) for entry in schedule] == [
        ("faults.store_killed", True),
        ("faults.store", False),
        ("faults.cache_killed", True),
        ("faults.cache", False),
        ("faults.engine_killed", True),
        ("faults.engine", False),
        ("faults.router_killed", None),
        ("faults.router", None),
        ("faults.node", False),
    ]


def test_faults_are_made_away_from_the_router() -> None:
    faults = made(cluster()).values()
    assert {fault.node for fault in faults if isinstance(fault, Fault)} == {"node2"}
    assert {fault.via for fault in faults if isinstance(fault, Fault)} == {"node1"}


def test_the_node_of_the_only_router_stays_and_that_is_said() -> None:
    fault = made(cluster())["faults.node"]
    assert isinstance(fault, Fault)
    assert fault.note == "not node1, which has the only router"
    assert fault.units == parse(cluster()).node("node2").units


def with_two_routers() -> dict[str, Any]:
    document = cluster()
    document["nodes"][1]["router"] = {**document["nodes"][0]["router"], "host": "10.9.0.12"}
    return document


def test_a_router_is_stopped_where_there_is_another_one_for_clients() -> None:
    fault = made(with_two_routers())["faults.router_killed"]
    assert isinstance(fault, Fault)
    assert (fault.node, fault.via, fault.units) == ("node1", "node2", ("vllm-router.service",))
    assert not fault.loses_in_flight
    assert not fault.through_edge


def test_with_an_edge_clients_stay_where_they_are_and_lose_at_most_what_was_under_way() -> None:
    document = with_two_routers()
    for node in document["nodes"]:
        node["edge"] = {"unit": "kvstrata-edge.service", "host": node["ssh"]["host"], "vrrp_unit": None}
    fault = made(document)["faults.router"]
    assert isinstance(fault, Fault)
    assert (fault.node, fault.via, fault.through_edge, fault.loses_in_flight) == ("node1", "node1", True, True)


def test_the_only_router_is_not_stopped_and_that_is_said() -> None:
    fault = made(cluster())["faults.router"]
    assert isinstance(fault, Omitted)
    assert fault.why.startswith("one router only")


def test_the_node_of_the_only_etcd_stays() -> None:
    document = with_two_routers()
    etcd = {"unit": "kvstrata-etcd.service", "host": "10.9.0.11", "port": 2379}
    document["nodes"][0]["etcd"] = {**etcd, "ca": "/ca", "certificate": "/c", "key": "/k"}
    fault = made(document)["faults.node"]
    assert isinstance(fault, Fault)
    assert (fault.node, fault.via) == ("node2", "node1")


def test_with_a_second_router_requests_go_through_the_one_that_stays() -> None:
    document = with_two_routers()
    fault = made(document)["faults.node"]
    assert isinstance(fault, Fault)
    assert {fault.node, fault.via} == {"node1", "node2"}
    assert fault.note == ""


def test_only_the_loss_of_an_engine_may_cost_a_request_under_way() -> None:
    faults = [entry for entry in made(cluster()).values() if isinstance(entry, Fault)]
    assert {fault.id for fault in faults if fault.loses_in_flight} == {
        "faults.engine_killed",
        "faults.engine",
        "faults.node",
    }


def test_the_only_engine_is_not_stopped() -> None:
    document = cluster()
    document["nodes"][1]["engines"] = []
    for id in ("faults.engine", "faults.engine_killed"):
        entry = made(document)[id]
        assert isinstance(entry, Omitted)
        assert entry.why.startswith("one engine only")


def test_a_node_that_does_not_answer_is_neither_stopped_nor_counted_on() -> None:
    schedule = made(cluster(), names=("node1",))
    assert isinstance(schedule["faults.node"], Omitted)
    assert isinstance(schedule["faults.engine"], Omitted)
    store = schedule["faults.store"]
    assert isinstance(store, Fault)
    assert store.node == "node1"


def test_without_a_router_nothing_is_stopped() -> None:
    document = cluster()
    document["nodes"][0]["router"] = None
    schedule = made(document)
    assert all(isinstance(entry, Omitted) for entry in schedule.values())
    assert len(schedule) == 9


def test_without_stores_or_lmcache_their_faults_are_left_out() -> None:
    document = cluster()
    for node in document["nodes"]:
        node["stores"], node["lmcache"] = [], None
    schedule = made(document)
    assert isinstance(schedule["faults.store"], Omitted)
    assert isinstance(schedule["faults.cache_killed"], Omitted)
    assert isinstance(schedule["faults.engine"], Fault)


def test_a_title_is_the_same_in_every_run() -> None:
    site: Cluster = parse(cluster())
    later = replace(site, nodes=tuple(reversed(site.nodes)))
    titles = [entry.title for entry in plan.schedule(site, ALL)]
    assert titles == [entry.title for entry in plan.schedule(later, ALL)]
    assert titles[0] == "kvrocks@d0.service killed on node2"
