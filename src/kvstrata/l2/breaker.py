"""A circuit breaker: after some failures in a row an endpoint is left alone, and asked again by itself.

closed -> open on `threshold` failures in a row (at once when it refused the connection or the password);
open -> half open when the back-off is over; half open -> closed when a probe succeeds, else open again, longer.
The back-off doubles from `first_s` to `last_s` seconds and is jittered by up to half, so that the nodes of a cluster
do not all knock at a returning store in the same instant (Brooker, "Exponential Backoff And Jitter", AWS, 2015).
"""

from __future__ import annotations

import random
import threading
import time

CLOSED, OPEN, HALF_OPEN = "closed", "open", "half_open"


class Breaker:
    """The state of one endpoint; safe for many threads."""

    def __init__(self, threshold: int = 3, first_s: float = 0.2, last_s: float = 2.0) -> None:
        """Start closed."""
        self._threshold = threshold
        self._first_s = first_s
        self._last_s = last_s
        self._lock = threading.Lock()
        self._state = CLOSED
        self._failures = 0
        self._backoff_s = first_s
        self._random = random.Random()  # noqa: S311 - spreads knocks, guards nothing
        self.reason = ""
        """Why it opened last."""
        self.opened = 0
        """How often it opened from closed."""
        self.last_ok: float | None = None
        """time.time() of the last good round trip."""

    @property
    def state(self) -> str:
        """`closed`, `open` or `half_open`."""
        return self._state

    @property
    def closed(self) -> bool:
        """Whether requests may go to the endpoint."""
        return self._state == CLOSED

    def succeeded(self) -> None:
        """Count a good round trip."""
        self.last_ok = time.time()
        if self._failures or self._state != CLOSED:
            with self._lock:
                self._state, self._failures, self._backoff_s = CLOSED, 0, self._first_s

    def failed(self, reason: str, at_once: bool = False) -> bool:
        """Count a failure; return whether it opened the breaker just now."""
        with self._lock:
            self._failures += 1
            self.reason = reason
            if self._state == HALF_OPEN:
                self._state = OPEN
                return False
            if self._state == CLOSED and (at_once or self._failures >= self._threshold):
                self._state = OPEN
                self.opened += 1
                return True
            return False

    def next_probe_s(self) -> float:
        """Return how many seconds to wait before the next probe, and double the wait after it."""
        with self._lock:
            self._state = OPEN
            wait = self._backoff_s * self._random.uniform(0.5, 1.0)
            self._backoff_s = min(self._last_s, self._backoff_s * 2)
            return wait

    def half_open(self) -> None:
        """Note that a probe is under way."""
        with self._lock:
            if self._state == OPEN:
                self._state = HALF_OPEN
