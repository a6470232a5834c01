"""How many nodes are looked at at the same time: as many as this machine keeps up with.

A node's checks mostly wait for the node, but connections, encryption and JSON are work done here, on one processor at a
time. With hundreds of nodes at once each gets so little of it that quick answers seem slow and clocks cannot be told
apart, and threads in each other's way cost three times the work. So another node is begun while there is some to spare.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

# So many are begun without asking.
FEW = 8
TICK_S = 0.01
# The share of one processor from which on this program is taken for busy.
BUSY = 0.6
# How late a tick may end: on a machine that is busy with other things this program is not, and yet cannot do more.
LATE_S = 0.02
# Of what is measured in a tick, so much is believed at once: the work comes in bursts.
WEIGHT = 0.2
# Whatever is measured, another one is begun after so long: a few that hang may not keep the others from it.
MOST_S = 0.4


class Paced:
    """Runs jobs in threads of their own. `last_begun` is when the last of them was, None until then."""

    def __init__(self, jobs: Sequence[Callable[[], None]], name: str) -> None:
        """Begin the first few at once, the others in the background."""
        self.last_begun: float | None = None
        self._jobs = list(jobs)
        self._name = name
        self._running = 0
        self._lock = threading.Lock()
        threading.Thread(target=self._begin, name=f"{name} pace", daemon=True).start()

    def _begin(self) -> None:
        load = Load()
        for number, job in enumerate(self._jobs):
            latest = time.monotonic() + MOST_S
            while self._running >= FEW and load.measured() and time.monotonic() < latest:
                pass
            with self._lock:
                self._running += 1
            threading.Thread(target=self._run, args=(job,), name=f"{self._name} {number}", daemon=True).start()
        self.last_begun = time.monotonic()

    def _run(self, job: Callable[[], None]) -> None:
        try:
            job()
        finally:
            with self._lock:
                self._running -= 1


class Load:
    """Whether this program has more work than it can do."""

    def __init__(self) -> None:
        """It is idle as far as is known."""
        self._share = 0.0

    def measured(self) -> bool:
        """Look for a tick."""
        began, used = time.monotonic(), time.process_time()
        time.sleep(TICK_S)
        passed = time.monotonic() - began
        now = (time.process_time() - used) / passed
        self._share += WEIGHT * (now - self._share)
        return self._share > BUSY or passed > TICK_S + LATE_S
