"""Rules over the inventory alone: no host is asked."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from kvstrata.preflight.problem import Problem

_DRIVE_NAME = re.compile(r"[a-z][a-z0-9_]{0,7}")  # with its prefix an XFS label, at most 12 characters


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
    for name, host in hosts.items():
        problems += _drives(name, host["drives"])
    return problems


def _shared_addresses(hosts: Mapping[str, Mapping[str, Any]], variable: str) -> list[Problem]:
    owners: dict[str, list[str]] = defaultdict(list)
    for name, host in hosts.items():
        owners[str(host[variable])].append(name)
    return [
        Problem(" and ".join(names), variable, address, "an address of its own for each node")
        for address, names in owners.items()
        if len(names) > 1
    ]


def _drives(where: str, drives: Sequence[Mapping[str, Any]]) -> list[Problem]:
    problems = []
    for field in ("name", "device"):
        seen: set[str] = set()
        for drive in drives:
            if drive[field] in seen:
                allowed = f"a {field} of its own for each drive of the host"
                problems.append(Problem(where, f"kvstrata_drives[].{field}", drive[field], allowed))
            seen.add(drive[field])
    problems += [
        Problem(where, "kvstrata_drives[].name", drive["name"], "a lower-case letter, then up to 7 of a-z, 0-9 and _")
        for drive in drives
        if not _DRIVE_NAME.fullmatch(str(drive["name"]))  # YAML reads a bare 0 as a number
    ]
    return problems
