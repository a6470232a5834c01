"""Where units run: what inventory and NUMA map give them, what systemd was told, and what the process has."""

from __future__ import annotations

from typing import Any

import pytest

from kvstrata.affinity import directives
from kvstrata.verify.check import Check, Status
from kvstrata.verify.layers import host
from kvstrata.verify.layers.host.numa import Placement, Running, listed, numbers, rendered, running, told
from tests.verify.fakes.site import Site

DEVICE = "/dev/disk/by-id/nvme-eui.1"
TWO_NODES = {
    "nodes": {"0": {"cpus": "0-3", "memory_gib": 512}, "1": {"cpus": "4-7", "memory_gib": 512}},
    "gpus": [{"pci": "0000:19:00.0", "numa_node": 0}, {"pci": "0000:9a:00.0", "numa_node": 1}],
    "nvme": [{"pci": "0000:a1:00.0", "numa_node": 1, "ids": ["nvme-eui.1"]}],
    "nics": [],
}
ALL = "Cpus_allowed_list:\t0-7\nMems_allowed_list:\t0-1\n"
ON_ONE = "Cpus_allowed_list:\t4-7\nMems_allowed_list:\t0-1\n55d0c0a00000 prefer:1 file=/opt/kvrocks mapped=12 N1=12\n"
ON_ZERO = "Cpus_allowed_list:\t0-3\nMems_allowed_list:\t0-1\n55d0c0a00000 prefer:0 file=/opt/kvrocks mapped=12 N0=12\n"
TOLD_ONE = "CPUAffinity=4-7\nNUMAPolicy=preferred\nNUMAMask=1"
TOLD_ZERO = "CPUAffinity=0-3\nNUMAPolicy=preferred\nNUMAMask=0"
INTERLEAVED = "Cpus_allowed_list:\t0-7\nMems_allowed_list:\t0-1\n55d0c0a00000 interleave:0-1 file=/usr/bin/python3\n"


@pytest.fixture
def two_nodes(site: Site) -> Site:
    """A host of two NUMA nodes: drive and engine on the second, the cache daemon in turn on both."""
    first, fake = site.document["nodes"][0], site.nodes["node1"].host
    first["mounts"][0]["device"] = DEVICE
    first["stores"][0]["numa"] = {"policy": "preferred", "node": None, "cpus": None}
    first["engines"][0] |= {"gpus": [1], "numa": {"policy": "preferred"}}
    first["lmcache"]["numa"] = {"policy": "interleave"}
    fake.numa = TWO_NODES
    fake.units = {
        "kvrocks@d0.service": TOLD_ONE,
        "vllm@0.service": TOLD_ONE,
        "lmcache.service": "NUMAPolicy=interleave\nNUMAMask=0-1",
    }
    fake.processes = {
        "1": ALL,
        "kvrocks@d0.service": ON_ONE,
        "vllm@0.service": ON_ONE,
        "lmcache.service": INTERLEAVED,
    }
    return site


def ask(site: Site) -> Check:
    bad = [check.id for check in host.checks(site.context()) if check.bad]
    assert bad in ([], ["host.numa"])
    return next(check for check in host.checks(site.context()) if check.id == "host.numa")


def test_units_beside_their_devices_pass(two_nodes: Site) -> None:
    check = ask(two_nodes)
    assert check.status is Status.PASS, check.seen
    assert check.seen == "3 units run where they are to, 3 of them placed; NUMA nodes of the machine: 0-1"
    assert check.data["kvrocks@d0.service"] == {"cpus": "4-7", "memory": "prefer"}


def test_a_store_that_was_placed_on_the_other_node_is_named(two_nodes: Site) -> None:
    fake = two_nodes.nodes["node1"].host
    by = "\nDropInPaths=/etc/systemd/system/kvrocks@d0.service.d/affinity.conf"
    fake.units["kvrocks@d0.service"] = TOLD_ZERO + by
    fake.processes["kvrocks@d0.service"] = ON_ZERO
    check = ask(two_nodes)
    assert check.status is Status.FAIL
    assert check.seen == (
        "kvrocks@d0.service is told CPUs 0-3, memory preferred of node 0 (drop-ins: "
        "/etc/systemd/system/kvrocks@d0.service.d/affinity.conf); inventory and NUMA map give it CPUs 4-7, memory "
        "preferred of node 1"
    )


def test_an_engine_that_is_not_placed_at_all_is_named(two_nodes: Site) -> None:
    fake = two_nodes.nodes["node1"].host
    del fake.units["vllm@0.service"]
    fake.processes["vllm@0.service"] = ALL
    assert "vllm@0.service is told CPUs any; inventory and NUMA map give it CPUs 4-7" in ask(two_nodes).seen


def test_a_process_that_was_moved_is_named(two_nodes: Site) -> None:
    two_nodes.nodes["node1"].host.processes["kvrocks@d0.service"] = ON_ONE.replace("4-7", "0-3")
    assert "kvrocks@d0.service runs on CPUs 0-3; systemd was told CPUs 4-7" in ask(two_nodes).seen


def test_a_process_from_before_its_memory_policy_is_named(two_nodes: Site) -> None:
    two_nodes.nodes["node1"].host.processes["lmcache.service"] = ALL + "55d0c0a00000 default file=/usr/bin/python3\n"
    assert "lmcache.service has the memory policy default; systemd was told" in ask(two_nodes).seen


def test_a_process_without_memory_of_its_node_is_named(two_nodes: Site) -> None:
    fake = two_nodes.nodes["node1"].host
    fake.processes["kvrocks@d0.service"] = ON_ONE.replace("Mems_allowed_list:\t0-1", "Mems_allowed_list:\t0")
    assert "kvrocks@d0.service may have memory of node 0 alone" in ask(two_nodes).seen


def test_cpus_that_no_role_gives_are_named(two_nodes: Site) -> None:
    fake = two_nodes.nodes["node1"].host
    fake.units["vllm-router.service"] = ""
    fake.units["lmcache.service"] += "\nAllowedCPUs=1"
    assert "lmcache.service is told AllowedCPUs=1, which no role writes" in ask(two_nodes).seen


def test_what_the_inventory_gives_goes_before_the_map(two_nodes: Site) -> None:
    fake = two_nodes.nodes["node1"].host
    two_nodes.document["nodes"][0]["stores"][0]["numa"] = {"policy": "preferred", "node": 0, "cpus": None}
    assert "inventory and NUMA map give it CPUs 0-3" in ask(two_nodes).seen
    fake.units["kvrocks@d0.service"], fake.processes["kvrocks@d0.service"] = TOLD_ZERO, ON_ZERO
    assert ask(two_nodes).status is Status.PASS
    two_nodes.document["nodes"][0]["stores"][0]["numa"] = {"policy": "preferred", "node": None, "cpus": "2"}
    assert "inventory and NUMA map give it CPUs 2" in ask(two_nodes).seen


def test_an_operators_own_placement_is_left_to_him(two_nodes: Site) -> None:
    first, fake = two_nodes.document["nodes"][0], two_nodes.nodes["node1"].host
    first["engines"][0]["numa"] = {"policy": "none"}
    fake.units["vllm@0.service"] = "CPUAffinity=6-7"
    fake.processes["vllm@0.service"] = ALL.replace("0-7", "6-7")
    assert ask(two_nodes).status is Status.PASS
    # It still must be in force.
    fake.processes["vllm@0.service"] = ALL
    assert "vllm@0.service runs on CPUs 0-7; systemd was told CPUs 6-7" in ask(two_nodes).seen


def test_a_container_has_no_more_cpus_than_its_host_gives_it(two_nodes: Site) -> None:
    fake = two_nodes.nodes["node1"].host
    fake.processes |= {
        "1": ALL.replace("0-7", "4-5"),
        "kvrocks@d0.service": ON_ONE.replace("4-7", "4-5"),
        "vllm@0.service": ON_ONE.replace("4-7", "4-5"),
        "lmcache.service": INTERLEAVED.replace("0-7", "4-5"),
    }
    assert ask(two_nodes).status is Status.PASS


def test_cpus_that_the_kernel_keeps_free_are_a_units_that_is_told_so(two_nodes: Site) -> None:
    fake = two_nodes.nodes["node1"].host
    fake.processes["1"] = ALL.replace("0-7", "0,4")
    fake.processes["lmcache.service"] = INTERLEAVED.replace("0-7", "0,4")
    assert ask(two_nodes).status is Status.PASS
    fake.processes["kvrocks@d0.service"] = ON_ONE.replace("4-7", "0")
    assert "kvrocks@d0.service runs on CPUs 0; systemd was told CPUs 4-7" in ask(two_nodes).seen


def test_without_a_process_nothing_is_proven(site: Site) -> None:
    for unit in ("kvrocks@d0.service", "lmcache.service", "vllm@0.service"):
        site.nodes["node1"].host.units[unit] = "MainPID=0"
    check = ask(site)
    assert check.status is Status.SKIP
    assert check.seen == "NOT CHECKED: where any unit runs: none of them has a process"


@pytest.mark.parametrize(
    ("line", "policy", "nodes"),
    [
        ("55d0c0a00000 default file=/bin/x", "default", ""),
        ("00400000 prefer:1 file=/bin/x mapped=3", "prefer", "1"),
        ("7f00 prefer (many):0-1 anon=1", "prefer", "0-1"),
        ("7f00 bind=static:0,2 anon=1", "bind", "0,2"),
        ("7f00 interleave:0-3 file=/bin/x", "interleave", "0-3"),
    ],
)
def test_policies_are_read_as_the_kernel_writes_them(line: str, policy: str, nodes: str) -> None:
    found = running(f"Cpus_allowed_list:\t0\nMems_allowed_list:\t0-3\n{line}\n")
    assert found == Running(frozenset({0}), numbers("0-3"), policy, numbers(nodes))


def test_lists_are_read_and_written_as_kernel_and_systemd_do() -> None:
    assert numbers("0-2,8") == numbers("0-2 8") == {0, 1, 2, 8}
    assert numbers("") == frozenset()
    assert listed(frozenset({0, 1, 2, 8})) == "0-2,8"
    assert running("") is None


@pytest.mark.parametrize("unset", ["", "n/a", "default"])
def test_a_unit_without_a_policy_has_none(unset: str) -> None:
    assert told({"NUMAPolicy": unset, "NUMAMask": "0", "CPUAffinity": ""}) == Placement()


def test_what_is_expected_is_what_the_roles_render(two_nodes: Site) -> None:
    node = two_nodes.context().node
    found = rendered(node, TWO_NODES)
    assert directives([1], "preferred") == ["CPUAffinity=numa", "NUMAPolicy=preferred", "NUMAMask=1"]
    assert found["kvrocks@d0.service"] == Placement(frozenset({4, 5, 6, 7}), "preferred", frozenset({1}))
    assert found["lmcache.service"] == Placement(frozenset(), "interleave", frozenset({0, 1}))
    empty: dict[str, Any] = {}
    assert set(rendered(node, empty).values()) == {Placement()}
