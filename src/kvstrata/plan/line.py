"""Loads of one tier: so many under way at most, delivered one after another; the others wait in line."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator


class Line[T]:
    """What LMCache looks up. What memory serves needs a place in line and no delivery. Times never go back."""

    def __init__(self, places: int) -> None:
        """Let at most so many be under way."""
        self._places = places
        self._waiting: deque[tuple[float, float, T]] = deque()
        self._under_way: list[tuple[float, int, T]] = []
        self._number = 0
        self._free_s = 0.0
        """When all that is under way will be delivered."""

    @property
    def next_s(self) -> float | None:
        """When the next one is over; None without any."""
        return self._under_way[0][0] if self._under_way else None

    def join(self, now: float, delivery_s: float, load: T) -> None:
        """Stand in line, for a delivery of so many seconds; 0 is none. `over(now)` was asked before."""
        self._waiting.append((now, delivery_s, load))
        self._fill(now)

    def over(self, now: float) -> Iterator[T]:
        """Yield what is over by `now`, in order."""
        while self._under_way and self._under_way[0][0] <= now:
            at, _, load = heapq.heappop(self._under_way)
            self._fill(at)
            yield load

    def backlog_s(self, now: float) -> float:
        """Return the seconds until everything that is in line has been delivered."""
        return max(0.0, self._free_s - now) + sum(delivery_s for _, delivery_s, _ in self._waiting)

    def _fill(self, now: float) -> None:
        while self._waiting and len(self._under_way) < self._places:
            joined, delivery_s, load = self._waiting.popleft()
            at = max(now, joined)
            if delivery_s:
                at = self._free_s = max(at, self._free_s) + delivery_s
            self._number += 1
            heapq.heappush(self._under_way, (at, self._number, load))
