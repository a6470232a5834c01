"""Where stores, engines and the cache daemon run, by the NUMA map of their host."""

from __future__ import annotations

from typing import Any

import pytest

from kvstrata.host.placement import cache_directives, drive_node, gpu_node, place_replicas, place_stores, working_nodes

NODE = {"cpus": "0-31", "memory_gib": 64, "distance": [10, 20]}


def drive(node: int | None, *ids: str) -> dict[str, Any]:
    return {"pci": "0000:01:00.0", "numa_node": node, "ids": list(ids)}


NUMA: dict[str, Any] = {
    "container": False,
    "nodes": {"0": NODE, "1": {**NODE, "cpus": "32-63"}},
    "gpus": [{"pci": f"0000:{bus}:00.0", "numa_node": node} for bus, node in (("17", 0), ("3d", 0), ("97", 1))],
    "nvme": [
        drive(0, "nvme-eui.00", "nvme-Model_A"),
        drive(1, "nvme-eui.01"),
        drive(1, "nvme-eui.02"),
        drive(None, "nvme-eui.03"),
    ],
    "nics": [],
}
ONE_NODE = {**NUMA, "nodes": {"0": NODE}}
# As a Grace Hopper shows itself: the GPU's memory is a node without CPUs.
GRACE = {**NUMA, "nodes": {"0": NODE, "1": {**NODE, "cpus": ""}}}
BY_ID = "/dev/disk/by-id"


def test_a_host_of_one_node_or_without_a_map_places_nothing() -> None:
    for numa in (ONE_NODE, GRACE, {}, {"container": True, "nodes": {}, "nvme": [], "gpus": []}):
        assert working_nodes(numa) == []
        assert drive_node(numa, [f"{BY_ID}/nvme-eui.00"]) is None
        assert gpu_node(numa, [0]) is None
        assert cache_directives(numa, "interleave") == []


@pytest.mark.parametrize(
    ("devices", "node"),
    [
        (["nvme-eui.00"], 0),
        (["nvme-Model_A"], 0),
        (["nvme-eui.01"], 1),
        (["nvme-eui.01", "nvme-eui.02"], 1),
        (["nvme-eui.00", "nvme-eui.01"], None),
        (["nvme-eui.01", "nvme-eui.03"], None),
        (["nvme-eui.03"], None),
        (["nvme-eui.99"], None),
    ],
)
def test_a_drive_has_the_node_of_its_devices_where_they_have_one(devices: list[str], node: int | None) -> None:
    assert drive_node(NUMA, [f"{BY_ID}/{name}" for name in devices]) == node


@pytest.mark.parametrize(("gpus", "node"), [([0, 1], 0), ([2], 1), ([1, 2], None), ([], None), ([2, 3], None)])
def test_gpus_have_the_node_that_all_of_them_are_on(gpus: list[int], node: int | None) -> None:
    assert gpu_node(NUMA, gpus) == node


@pytest.mark.parametrize(
    ("own", "placed"),
    [
        ({"cpus": None, "numa_node": None}, {"cpus": None, "numa_node": 1}),
        ({}, {"numa_node": 1}),
        ({"numa_node": 0}, {"numa_node": 0}),
        ({"cpus": "0-3", "numa_node": None}, {"cpus": "0-3", "numa_node": None}),
    ],
)
def test_a_store_goes_to_its_drive_unless_the_inventory_says_where(own: dict[str, Any], placed: dict[str, Any]) -> None:
    drives = [{"name": "d0", "device": f"{BY_ID}/nvme-eui.01"}]
    assert place_stores([{"drive": "d0", **own}], drives, NUMA) == [{"drive": "d0", **placed}]


def test_a_store_on_a_raid_of_drives_on_one_node_goes_there() -> None:
    drives = [{"name": "d0", "devices": [f"{BY_ID}/nvme-eui.01", f"{BY_ID}/nvme-eui.02"]}]
    assert place_stores([{"drive": "d0"}], drives, NUMA) == [{"drive": "d0", "numa_node": 1}]


def test_without_a_map_a_store_stays_as_the_inventory_has_it() -> None:
    drives = [{"name": "d0", "device": f"{BY_ID}/nvme-eui.01"}]
    assert place_stores([{"drive": "d0", "numa_node": None}], drives, {}) == [{"drive": "d0", "numa_node": None}]


@pytest.mark.parametrize(
    ("gpus", "policy", "text"),
    [
        ([2], "preferred", "[Service]\nCPUAffinity=numa\nNUMAPolicy=preferred\nNUMAMask=1\n"),
        ([0, 1], "bind", "[Service]\nCPUAffinity=numa\nNUMAPolicy=bind\nNUMAMask=0\n"),
        ([0, 2], "preferred", ""),
        ([], "preferred", ""),
        ([2], "none", ""),
    ],
)
def test_an_engine_goes_beside_its_gpus_where_they_are_on_one_node(gpus: list[int], policy: str, text: str) -> None:
    (placed,) = place_replicas([{"id": 0, "gpus": gpus}], NUMA, policy)
    assert placed == {"id": 0, "gpus": gpus, "drop_in": text}


def test_the_cache_takes_memory_from_all_nodes_and_runs_anywhere() -> None:
    assert cache_directives(NUMA, "interleave") == ["NUMAPolicy=interleave", "NUMAMask=0 1"]
    assert cache_directives(NUMA, "none") == []
