"""On which CPUs and with which memory a service runs, as systemd directives (systemd.exec(5))."""

from __future__ import annotations

import re
from collections.abc import Sequence

_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


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


def directives(
    nodes: Sequence[int], policy: str, *, wanted_cpus: str | None = None, cpus_of_nodes: bool = True
) -> list[str]:
    """Return the [Service] lines that place a service, none where nothing is to be placed.

    Args:
        nodes: NUMA nodes its memory comes from; empty for no policy.
        policy: a NUMAPolicy of systemd.
        wanted_cpus: CPUs it runs on, as "0-3,8".
        cpus_of_nodes: whether it runs on the CPUs of the nodes where `wanted_cpus` says nothing.

    Raises:
        ValueError: if `wanted_cpus` is no list of CPUs.
    """
    lines = []
    if wanted_cpus is not None:
        lines.append("CPUAffinity=" + " ".join(str(cpu) for cpu in sorted(cpus(wanted_cpus))))
    elif nodes and cpus_of_nodes:
        # The CPUs of the nodes in NUMAMask.
        lines.append("CPUAffinity=numa")
    if nodes:
        lines += [f"NUMAPolicy={policy}", "NUMAMask=" + " ".join(str(node) for node in nodes)]
    return lines


def drop_in(lines: Sequence[str]) -> str:
    """Return the text of a unit's drop-in with these [Service] lines, or nothing."""
    return "\n".join(["[Service]", *lines, ""]) if lines else ""
