"""On which CPUs and with which memory a store runs, as systemd directives."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from kvstrata.preflight.problem import Problem

_RANGE = re.compile(r"(\d+)(?:-(\d+))?")
POLICIES = ("preferred", "bind", "interleave", "local")


def cpus(text: str) -> set[int]:
    """Return the CPUs of a list as the kernel writes it, "0-3,8".

    Raises:
        ValueError: if it is none.
    """
    found: set[int] = set()
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise ValueError(text)
        found.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return found


def drop_in(instance: Mapping[str, Any], policy: str) -> str:
    """Return the [Service] directives of a store that has CPUs or a NUMA node of its own, or nothing."""
    wanted, node = instance.get("cpus"), instance.get("numa_node")
    lines = []
    if wanted is not None:
        lines.append("CPUAffinity=" + " ".join(str(cpu) for cpu in sorted(cpus(str(wanted)))))
    elif node is not None:
        # systemd.exec(5): the CPUs of the nodes in NUMAMask.
        lines.append("CPUAffinity=numa")
    if node is not None:
        lines += [f"NUMAPolicy={policy}", f"NUMAMask={node}"]
    return "\n".join(["[Service]", *lines, ""]) if lines else ""


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
