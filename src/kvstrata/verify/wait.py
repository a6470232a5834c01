"""Await a condition with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable


def until[T](
    condition: Callable[[], T | None],
    timeout_s: float,
    poll_s: float = 0.5,
    sleep: Callable[[float], None] = time.sleep,
) -> T | None:
    """What `condition` returns as soon as that isn't None; None after `timeout_s` seconds.

    It is asked at least once, and once more at the deadline.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        left = deadline - time.monotonic()
        answer = condition()
        if answer is not None or left <= 0:
            return answer
        # A remote service has nothing to wait on: asking again after a pause is all there is.
        sleep(min(poll_s, left))
