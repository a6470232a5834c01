"""Whether and when a service starts again: Restart= and what goes with it, systemd.service(5)."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import Literal

from kvstrata.unit_runner.service import Service
from kvstrata.unit_runner.values import INFINITY

Ending = Literal["success", "exit-code", "signal", "core-dump", "timeout", "start"]
_CLEAN_SIGNALS = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE})
# The rows of the table "Exit causes and the effect of the Restart= settings".
_BY_ENDING = {
    "success": {"always", "on-success"},
    "exit-code": {"always", "on-failure"},
    "start": {"always", "on-failure"},
    "signal": {"always", "on-failure", "on-abnormal", "on-abort"},
    "core-dump": {"always", "on-failure", "on-abnormal", "on-abort"},
    "timeout": {"always", "on-failure", "on-abnormal"},
}


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    ending: Ending
    text: str


def of_status(status: int, *, oneshot: bool = False) -> Ended:
    """Return what a wait status means to systemd. A oneshot that a signal ended did not do its work."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
        if number in _CLEAN_SIGNALS and not oneshot:
            return Ended("success", f"signal {name}")
        return Ended("core-dump" if os.WCOREDUMP(status) else "signal", f"signal {name}")
    code = os.WEXITSTATUS(status)
    return Ended("success" if code == 0 else "exit-code", f"exit code {code}")


def again(service: Service, ended: Ended) -> bool:
    """Return whether it starts again after it ended by itself."""
    return service.restart in _BY_ENDING[ended.ending]


def delay_s(service: Service, restarts: int) -> float:
    """Return the seconds before a restart; `restarts`: how many there were since it was started, this one included.

    As service_restart_usec_next() of systemd 254: from RestartSec= to RestartMaxDelaySec= in RestartSteps= steps.
    """
    first, most, steps = service.restart_s, service.restart_most_s, service.restart_steps
    if restarts <= 1 or not steps or not first or most == INFINITY or first >= most:
        return first
    if restarts > steps:
        return most
    return float(first * (most / first) ** ((restarts - 1) / steps))


class StartLimit:
    """StartLimitIntervalSec= and StartLimitBurst=: how often it may start within a while."""

    def __init__(self, service: Service) -> None:
        """Nothing was started yet."""
        self._interval, self._burst = service.start_limit_s, service.start_limit_burst
        self._starts: list[float] = []

    def allows(self, now: float) -> bool:
        """Return whether it may start now, and count that."""
        if not self._interval or not self._burst:
            return True
        self._starts = [moment for moment in self._starts if now - moment < self._interval]
        if len(self._starts) >= self._burst:
            return False
        self._starts.append(now)
        return True
