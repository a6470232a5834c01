"""Calls at given moments, all from one thread."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable


class Alarm:
    """A list of moments, and what to call at each; the calls must be short."""

    def __init__(self, name: str, failed: Callable[[Exception], object]) -> None:
        """Start the thread; `failed` gets what a call raised, after which the others are still called."""
        self._failed = failed
        self._condition = threading.Condition()
        self._calls: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def at(self, moment: float, call: Callable[[], object]) -> None:
        """Call at a moment of time.monotonic(); nothing is called after `close`."""
        with self._condition:
            if self._closed:
                return
            heapq.heappush(self._calls, (moment, next(self._numbers), call))
            if self._calls[0][2] is call:
                self._condition.notify()

    def close(self) -> None:
        """Forget what has not been called, and end the thread."""
        with self._condition:
            self._closed = True
            self._condition.notify()
        self._thread.join()

    def _run(self) -> None:
        while (call := self._next()) is not None:
            try:
                call()
            except Exception as error:  # the others wait for this thread
                self._failed(error)

    def _next(self) -> Callable[[], object] | None:
        with self._condition:
            while not self._closed:
                wait_s = self._calls[0][0] - time.monotonic() if self._calls else None
                if wait_s is not None and wait_s <= 0:
                    return heapq.heappop(self._calls)[2]
                self._condition.wait(wait_s)
        return None
