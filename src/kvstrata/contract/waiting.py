"""Whether a machine held a load back: the time that its programs were ready to run and had no CPU.

A mocked engine takes its time by a clock. Where it has to wait for a CPU as well it is slower than it says, and so are
the router and the client: what is measured then is the machine.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass

from kvstrata.bench.serving import guard
from kvstrata.bench.serving.processes import Child

_NS = 1e9


@dataclass(frozen=True)
class Used:
    """What programs used of a machine between two moments. CPU seconds, seconds waited for one, seconds in all."""

    cpu_s: float
    waited_s: float
    seconds: float

    @property
    def cores(self) -> float:
        """CPUs that they used on average."""
        return self.cpu_s / self.seconds

    def waiting(self, answering_s: float) -> float | None:
        """Return the wait against the time that answers took; None without answers, or where Linux does not count.

        It is what the machine added to answers at most: threads that no answer waits for are counted too.
        """
        return self.waited_s / answering_s if answering_s and _counts() else None


class Meter:
    """Counts what programs, and this one, use of the machine from now on."""

    def __init__(self, children: Iterable[Child]) -> None:
        """None of `children` may end meanwhile: what it used would be gone with it."""
        self._children = tuple(children)
        self._began = self._until_now()

    def used(self) -> Used:
        """Return what they used until now."""
        return Used(*(late - early for early, late in zip(self._began, self._until_now(), strict=True)))

    def _until_now(self) -> tuple[float, float, float]:
        waited = sum(waited_s(pid) for child in self._children for pid in guard.members(child.pid))
        used = sum(child.cpu_s() for child in self._children)
        return time.process_time() + used, waited_s("self") + waited, time.monotonic()


def waited_s(pid: int | str) -> float:
    """Return the seconds that a process's threads, those that there are, waited for a CPU until now; 0 if it is gone.

    The second number of /proc/PID/task/TID/schedstat (Linux: Documentation/scheduler/sched-stats.rst), nanoseconds.
    """
    total = 0
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in (guard.PROC / str(pid) / "task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                total += int((task / "schedstat").read_text().split()[1])
    return total / _NS


def _counts() -> bool:
    """Return whether this kernel counts (CONFIG_SCHED_INFO)."""
    return (guard.PROC / "self" / "schedstat").is_file()
