"""The rules over an inventory alone, and the message that a user reads."""

from __future__ import annotations

from typing import Any

import pytest

from kvstrata.preflight.problem import Problem, report
from kvstrata.preflight.site import judge_site


def host(number: int, **changes: Any) -> dict[str, Any]:
    address = f"10.0.0.{number}"
    own = [{"name": f"d{index}", "device": f"/dev/disk/by-id/nvme-{number}{index}"} for index in (0, 1)]
    return {"ansible_host": address, "kvstrata_fabric_address": address, "drives": own, **changes}


def lines(hosts: dict[str, dict[str, Any]], routers: list[str]) -> list[str]:
    return [str(problem) for problem in judge_site(hosts, routers)]


def test_two_nodes_with_a_router_pass() -> None:
    assert lines({"n1": host(1), "n2": host(2)}, ["n1"]) == []


def test_a_site_without_a_router_is_refused() -> None:
    assert lines({"n1": host(1)}, []) == [
        "inventory: group router is []; allowed: at least one node of the group kvstrata"
    ]


def test_a_router_that_is_no_node_is_refused_with_the_nodes() -> None:
    assert lines({"n1": host(1), "n2": host(2)}, ["n1", "edge"]) == [
        "inventory: group router is 'edge'; allowed: nodes of the group kvstrata: n1, n2"
    ]


@pytest.mark.parametrize("variable", ["ansible_host", "kvstrata_fabric_address"])
def test_two_nodes_with_one_address_are_refused_by_both_names(variable: str) -> None:
    hosts = {"n1": host(1), "n2": host(2, **{variable: "10.0.0.1"}), "n3": host(3)}
    assert lines(hosts, ["n1"]) == [
        f"n1 and n2: {variable} is '10.0.0.1'; allowed: an address of its own for each node"
    ]


def test_the_same_drive_names_on_two_nodes_are_fine() -> None:
    assert lines({"n1": host(1), "n2": host(2)}, ["n2"]) == []


def test_what_is_wrong_with_a_drive_is_wrong_with_the_site() -> None:
    (line,) = lines({"n1": host(1, drives=[{"name": "d0", "device": "/dev/nvme0n1"}]), "n2": host(2)}, ["n1"])
    assert line.startswith("n1: kvstrata_drives[d0].device is '/dev/nvme0n1'; allowed: a name below /dev/disk/by-id/")


def test_one_drive_on_two_nodes_is_refused_by_both_names() -> None:
    both = [{"name": "d0", "device": "/dev/disk/by-id/nvme-eui.1"}]
    (line,) = lines({"n1": host(1, drives=both), "n2": host(2, drives=both)}, ["n1"])
    assert line.startswith("n1 and n2: kvstrata_drives[].device is '/dev/disk/by-id/nvme-eui.1'; allowed: ")


def test_the_message_names_where_variable_value_and_what_is_allowed() -> None:
    assert str(Problem("n1", "kvstrata_replicas", "many", "int")) == "n1: kvstrata_replicas is 'many'; allowed: int"


def test_a_report_is_sorted_without_repetitions_and_counts() -> None:
    late, early = Problem("n2", "b", 1, "2"), Problem("n1", "a", 1, "2")
    assert report([late, early, late]).splitlines() == [
        "2 problems, and nothing was changed on any host:",
        "  - n1: a is 1; allowed: 2",
        "  - n2: b is 1; allowed: 2",
    ]
    assert report([late]).startswith("1 problem, and nothing was changed")
