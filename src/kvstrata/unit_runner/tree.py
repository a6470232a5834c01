"""The processes below one process, by /proc: what systemd knows by the unit's control group."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from pathlib import Path

PROC = Path("/proc")


def descendants(root: int, *, dead: bool = False) -> list[int]:
    """Return all living processes below `root`, without it; with `dead`, also those that nobody has waited for yet.

    A subreaper's orphans are below it too.
    """
    children: dict[int, list[int]] = defaultdict(list)
    for entry in PROC.iterdir():
        if (
            entry.name.isdigit()
            and (found := _state_and_parent(int(entry.name))) is not None
            and (dead or found[0] != "Z")
        ):
            children[found[1]].append(int(entry.name))
    result: list[int] = []
    waiting = [root]
    while waiting:
        below = children[waiting.pop()]
        result += below
        waiting += below
    return result


def start_time(pid: int) -> int | None:
    """Return when a process started, in ticks since boot: with its number it names the process for ever."""
    with contextlib.suppress(OSError, ValueError):
        return int((PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[19])
    return None


def send(pids: list[int], number: int) -> None:
    """Send a signal to each that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _state_and_parent(pid: int) -> tuple[str, int] | None:
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[1])
