"""How fast an endpoint delivers, measured while it is busy."""

from __future__ import annotations

import threading
import time

_WINDOW_S = 0.25
_SAMPLE_BYTES = 1 << 20
_WEIGHT = 0.3


class RateMeter:
    """Bytes per second over busy time: idle time between requests is no slowness.

    An exponentially weighted mean of windows of a quarter second or, on short bursts, of the burst.
    """

    def __init__(self) -> None:
        """Start without a measurement."""
        self._lock = threading.Lock()
        self._active = 0
        self._since = 0.0
        self._bytes = 0
        self.bytes_per_s: float | None = None
        """The smoothed rate, or None before the first measurement."""
        self.outstanding = 0
        """Bytes asked for and not yet delivered."""

    def begin(self, count: int) -> None:
        """Note that `count` bytes were asked for."""
        with self._lock:
            if not self._active:
                self._since, self._bytes = time.monotonic(), 0
            self._active += 1
            self.outstanding += count

    def end(self, asked: int, delivered: int) -> None:
        """Note that a request for `asked` bytes is over, and how many came."""
        now = time.monotonic()
        with self._lock:
            self._active -= 1
            self.outstanding -= asked
            self._bytes += delivered
            elapsed = now - self._since
            if self._bytes >= _SAMPLE_BYTES and elapsed > 0 and (not self._active or elapsed >= _WINDOW_S):
                sample = self._bytes / elapsed
                old = self.bytes_per_s
                self.bytes_per_s = sample if old is None else old + _WEIGHT * (sample - old)
                self._since, self._bytes = now, 0
