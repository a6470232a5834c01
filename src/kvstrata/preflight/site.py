"""Rules over the inventory alone: no host is asked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from kvstrata.preflight.drives import judge_drives, judge_shared_devices
from kvstrata.preflight.problem import Problem


def judge_site(hosts: Mapping[str, Mapping[str, Any]], routers: Sequence[str]) -> list[Problem]:
    """Return what cannot work in an inventory.

    Args:
        hosts: for each node its variables: drives, address (ansible_host) and fabric_address.
        routers: the nodes of the group `router`.
    """
    problems = []
    if not routers:
        problems.append(Problem("inventory", "group router", list(routers), "at least one node of the group kvstrata"))
    problems += [
        Problem("inventory", "group router", name, f"nodes of the group kvstrata: {', '.join(hosts)}")
        for name in routers
        if name not in hosts
    ]
    for variable in ("ansible_host", "kvstrata_fabric_address"):
        problems += _shared_addresses(hosts, variable)
    drives = {name: host["drives"] for name, host in hosts.items()}
    for name, entries in drives.items():
        problems += judge_drives(name, entries)
    return problems + judge_shared_devices(drives)


def _shared_addresses(hosts: Mapping[str, Mapping[str, Any]], variable: str) -> list[Problem]:
    owners: dict[str, list[str]] = defaultdict(list)
    for name, host in hosts.items():
        owners[str(host[variable])].append(name)
    return [
        Problem(" and ".join(names), variable, address, "an address of its own for each node")
        for address, names in owners.items()
        if len(names) > 1
    ]
