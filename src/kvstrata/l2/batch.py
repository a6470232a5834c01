"""Many parts, one answer: the callback comes when the last part is settled, once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Batch(Generic[T]):
    """Results by number, with a default for those that are never expected.

    Used as a context manager while its parts are started, so that it cannot end before all of them are known.
    """

    def __init__(self, defaults: Sequence[T], done: Callable[[list[T]], None]) -> None:
        """Begin with the defaults."""
        self._results = list(defaults)
        self._done = done
        self._lock = threading.Lock()
        self._open: set[int] = set()
        self._starting = True

    def expect(self, number: int) -> None:
        """Wait for `settle` of this number."""
        with self._lock:
            self._open.add(number)

    def settle(self, number: int, result: T) -> None:
        """Set a result; the last one calls back. A number that is not expected only sets its result while starting."""
        with self._lock:
            if number not in self._open and not self._starting:
                return
            self._open.discard(number)
            self._results[number] = result
            last = not self._open and not self._starting
        if last:
            self._done(self._results)

    def hurry(self, late: Callable[[frozenset[int]], object]) -> None:
        """Call back now with what there is, and drop what is settled later; nothing where it has called back.

        Before that `late` gets the numbers that were waited for.
        """
        with self._lock:
            waited = frozenset() if self._starting else frozenset(self._open)
            if waited:
                self._open.clear()
        if waited:
            late(waited)
            self._done(self._results)

    def settler(self, number: int) -> Callable[[T], None]:
        """Return `settle` for one number."""
        return lambda result: self.settle(number, result)

    def __enter__(self) -> Batch[T]:
        """Start."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """All parts are known: call back now if they are settled already."""
        with self._lock:
            self._starting = False
            last = not self._open
        if last and error is None:
            self._done(self._results)
