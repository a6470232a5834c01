"""On which CPUs and with which memory a store runs, and what of it a host cannot give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kvstrata import affinity
from kvstrata.affinity import cpus
from kvstrata.preflight.problem import Problem


def drop_in(instance: Mapping[str, Any], policy: str) -> str:
    """Return the drop-in of a store that has CPUs or a NUMA node of its own, or nothing."""
    wanted, node = instance.get("cpus"), instance.get("numa_node")
    nodes = [] if node is None or policy == "none" else [int(node)]
    return affinity.drop_in(affinity.directives(nodes, policy, wanted_cpus=None if wanted is None else str(wanted)))


def judge_affinity(where: str, drives: Sequence[Mapping[str, Any]], seen: Mapping[str, Any]) -> list[Problem]:
    """Return what is wrong with `cpus` and `numa_node` of a host's drives.

    Args:
        where: the host.
        drives: each with a name, and where set with cpus and numa_node.
        seen: what the host has: cpus as the kernel's list of those online, and numa_nodes.
    """
    problems = []
    online = cpus(seen["cpus"])
    for drive in drives:
        if (wanted := drive.get("cpus")) is not None:
            problems += _cpus(where, f"kvstrata_drives[{drive['name']}].cpus", wanted, online, seen["cpus"])
        if (node := drive.get("numa_node")) is not None and node not in seen["numa_nodes"]:
            nodes = ", ".join(str(each) for each in seen["numa_nodes"]) or "none, the host shows no NUMA nodes"
            problems.append(Problem(where, f"kvstrata_drives[{drive['name']}].numa_node", node, nodes))
    return problems


def _cpus(where: str, variable: str, wanted: object, online: set[int], listed: str) -> list[Problem]:
    try:
        missing = cpus(str(wanted)) - online
    except ValueError:
        return [Problem(where, variable, wanted, 'CPUs and ranges of them, as "0-3,8"')]
    if missing:
        return [Problem(where, variable, wanted, f"CPUs of the host: {listed}")]
    return []
