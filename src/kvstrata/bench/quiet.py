"""Wait for a shared machine to be quiet before something is measured."""

from __future__ import annotations

import time
from collections.abc import Callable

from kvstrata.bench.procfs import Usage, foreign_cpu_s

# Of all cores; what a machine's own daemons need lies below it.
QUIET_SHARE = 0.1
_WINDOW_S = 1.0


def _foreign_cpu_s() -> float:
    # Between setups no server and no client of ours runs.
    return foreign_cpu_s(Usage())


class QuietWait:
    """Waits before each setup, for so many seconds in all of a run."""

    def __init__(
        self,
        cores: int,
        most_s: float,
        foreign: Callable[[], float] = _foreign_cpu_s,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Wait until others use less than QUIET_SHARE of `cores`, `most_s` seconds altogether."""
        self._cores = cores
        self._left_s = most_s
        self._foreign, self._clock, self._sleep = foreign, clock, sleep
        self.waited_s = 0.0

    def __call__(self) -> None:
        """Wait until a window of a second was quiet, or the seconds are used up."""
        while self._left_s > 0:
            began, used = self._clock(), self._foreign()
            self._sleep(min(_WINDOW_S, self._left_s))
            passed = self._clock() - began
            self.waited_s += passed
            self._left_s -= passed
            if (self._foreign() - used) / passed <= QUIET_SHARE * self._cores:
                return
