"""How long something would have taken on a machine that nobody else uses."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import TracebackType

# Of a line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal.
_IDLE, _IOWAIT = 3, 4


class Stopwatch:
    """Measures while the `with` lasts. `own_cpu_s` is to be told: the processor time of all that is measured."""

    def __enter__(self) -> Stopwatch:
        self._began, self._ticks = time.monotonic(), _ticks()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.wall_s = time.monotonic() - self._began
        idle, every = (after - before for before, after in zip(self._ticks, _ticks(), strict=True))
        self._idle_share, self._machine_s = idle / max(1, every), every / os.sysconf("SC_CLK_TCK")

    def others(self, own_cpu_s: float) -> float:
        """The share of the processors that other programs took."""
        busy = (1 - self._idle_share) * self._machine_s
        return min(1.0, max(0.0, busy - own_cpu_s) / max(self._machine_s, 1e-9))

    def undisturbed_s(self, own_cpu_s: float) -> float:
        """The time less the share of the processors that others took; on an idle machine that is the time itself."""
        return self.wall_s * (1 - self.others(own_cpu_s))


def _ticks() -> tuple[int, int]:
    """Idle ticks and all ticks of all processors since boot."""
    numbers = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return numbers[_IDLE] + numbers[_IOWAIT], sum(numbers)
