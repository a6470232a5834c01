"""Faults, each planted in a simulated site: verify names that one on its node, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from kvstrata.cli import app
from kvstrata.verify.layers.cache import stores
from kvstrata.verify.layers.router import policy
from tests.verify.simulated.cluster import SimulatedCluster
from tests.verify.simulated.state import FakeSite

type Plant = Callable[[FakeSite], None]

NODES = 3
# Both router hosts.
BOTH = "node1 node2"


def of_node(field: str, value: object) -> Plant:
    """Something is other on node2."""

    def plant(site: FakeSite) -> None:
        setattr(site.nodes["node2"], field, value)

    return plant


def of_site(field: str, value: object) -> Plant:
    """Something is other of the whole site."""

    def plant(site: FakeSite) -> None:
        setattr(site, field, value)

    return plant


FAULTS: dict[str, tuple[Plant, str, str]] = {
    "another drive in a drive's place": (of_node("mounted", "drive"), "host.mount", "node2"),
    "a folder in a drive's place": (of_node("mounted", "folder"), "host.mount", "node2"),
    "nothing in a drive's place": (of_node("mounted", "nothing"), "host.mount", "node2"),
    "dead breaker": (of_node("given_up", True), "cache.breaker", "node2"),
    "stale identity": (of_node("namespace", "kvs-fedcba9876543210"), "cache.identity", "node2"),
    "swapped model": (of_node("weights", 1), "engine.weights", "node2"),
    # The link is measured where it ends: node1 takes what node2 sends.
    "lossy link": (of_node("lost_share", 0.1), "host.link", "node1"),
    "slow drive": (of_node("drive_share", 0.2), "host.drive_speed", "node2"),
    "router without affinity": (of_site("affinity", False), "router.locality", "node1"),
    "expired certificate": (of_node("certificate_days", -3.0), "store.certificate", "node2"),
    "full store": (of_node("full", True), "store.capacity", "node2"),
    "clock skew": (of_node("clock_offset_s", 30.0), "host.clock", "node2"),
    "wrong NUMA": (of_node("memory_node", 1), "host.numa", "node2"),
    "edge without key check": (of_site("edge_asks_for_keys", False), "edge.keys", BOTH),
    "edge that passes on more than the API": (of_site("edge_passes_all", True), "edge.closed", BOTH),
    "edge that holds answers back": (of_site("edge_holds_back", True), "edge.streaming", BOTH),
    "expired edge certificate": (of_node("edge_certificate_days", -3.0), "edge.certificate", "node2"),
    "virtual address on two hosts": (of_node("holds_address", True), "edge.virtual_address", "simulated"),
    "router that lost a worker": (of_node("lost_worker", True), "router.workers", "node2"),
    "router of another policy": (of_site("policy", "round_robin"), "router.policy", BOTH),
    "engine without connector": (of_node("connector", False), "engine.connector", "node2"),
}


DYNAMO_FAULTS: dict[str, tuple[Plant, str, str]] = {
    "swapped model": (of_node("weights", 1), "engine.weights", "node2"),
    "worker without connector": (of_node("connector", False), "engine.connector", "node2"),
    "frontend that lost a worker": (of_node("lost_worker", True), "router.workers", "node2"),
    "frontend without affinity": (of_site("affinity", False), "router.locality", "node1"),
    "frontends that hear of no cache": (of_site("tells_events", False), "router.events", BOTH),
    "member of etcd that is ill": (of_node("etcd_ill", True), "host.etcd", "node1 node2 node3"),
}


@pytest.fixture
def dynamo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimulatedCluster:
    monkeypatch.setattr(stores, "SETTLE_S", 0.1)
    monkeypatch.setattr(policy, "SETTLE_S", 0.5)
    return SimulatedCluster(tmp_path, NODES, profile="dynamo")


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimulatedCluster:
    # A dead breaker is one that stays open for so long; here nothing closes it anyway.
    monkeypatch.setattr(stores, "SETTLE_S", 0.1)
    return SimulatedCluster(tmp_path, NODES)


def verified(cluster: SimulatedCluster) -> dict[str, Any]:
    """The document of `kvstrata verify` with all layers; the simulation must have known everything it was asked."""
    with cluster:
        argv = ["verify", "--cluster", str(cluster.write_document()), "--json", "--keep", "0"]
        done = CliRunner().invoke(app, argv)
    assert cluster.ended is not None
    assert cluster.ended.unknown == ()
    document: dict[str, Any] = json.loads(done.stdout)
    assert done.exit_code == document["exit_code"]
    return document


def told(document: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(check["id"], check["host"], check["status"]) for check in document["failures"]]


def test_a_site_that_is_well_passes_every_check(cluster: SimulatedCluster) -> None:
    document = verified(cluster)
    assert told(document) == []
    assert document["exit_code"] == 0
    assert [check["id"] for check in document["skipped"]] == ["faults.all"]


def test_a_site_of_dynamo_that_is_well_passes_every_check(dynamo: SimulatedCluster) -> None:
    document = verified(dynamo)
    assert told(document) == []
    assert [check["id"] for check in document["skipped"]] == ["faults.all"]
    asked = {check["id"] for check in document["checks"]}
    assert {"host.etcd", "router.events", "engine.logprobs", "tiers.restarted", "router.locality"} <= asked
    assert document["profile"] == "dynamo"


@pytest.mark.parametrize("fault", DYNAMO_FAULTS)
def test_a_fault_of_dynamo_is_named_on_its_node_and_nothing_else_is(dynamo: SimulatedCluster, fault: str) -> None:
    plant, check, host = DYNAMO_FAULTS[fault]
    plant(dynamo.site)
    document = verified(dynamo)
    assert [(name, where) for name, where, _ in told(document)] == [(check, where) for where in host.split()]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named_on_its_node_and_nothing_else_is(cluster: SimulatedCluster, fault: str) -> None:
    plant, check, host = FAULTS[fault]
    plant(cluster.site)
    document = verified(cluster)
    expected = [(check, where) for where in host.split()]
    assert [(name, where) for name, where, _ in told(document)] == expected, told(document)
    assert document["exit_code"] == 1
