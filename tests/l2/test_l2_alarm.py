from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from kvstrata.l2.alarm import Alarm

PATIENCE_S = 10.0


@pytest.fixture
def failures() -> list[Exception]:
    return []


@pytest.fixture
def alarm(failures: list[Exception]) -> Iterator[Alarm]:
    made = Alarm("test-alarm", failures.append)
    yield made
    made.close()


def test_calls_come_in_the_order_of_their_moments_and_not_before(alarm: Alarm) -> None:
    began, called, over = time.monotonic(), list[tuple[str, float]](), threading.Event()

    def call(name: str) -> None:
        called.append((name, time.monotonic() - began))
        if name == "last":
            over.set()

    # The one that is set last comes first: the thread waits for another moment then.
    for name, after in (("last", 0.12), ("second", 0.06), ("first", 0.03)):
        alarm.at(began + after, lambda name=name: call(name))  # type: ignore[misc]
    assert over.wait(PATIENCE_S)
    assert [name for name, _ in called] == ["first", "second", "last"]
    assert all(late >= after for (_, late), after in zip(called, (0.03, 0.06, 0.12), strict=True))


def test_what_is_past_is_called_at_once(alarm: Alarm) -> None:
    over = threading.Event()
    alarm.at(time.monotonic() - 1, over.set)
    assert over.wait(PATIENCE_S)


def test_a_call_that_fails_is_told_and_keeps_none_of_the_others(alarm: Alarm, failures: list[Exception]) -> None:
    over = threading.Event()
    alarm.at(time.monotonic() - 2, lambda: 1 // 0)
    alarm.at(time.monotonic() - 1, over.set)
    assert over.wait(PATIENCE_S)
    assert [type(error) for error in failures] == [ZeroDivisionError]


def test_nothing_is_called_after_its_end() -> None:
    made, called = Alarm("test-alarm", lambda _: None), threading.Event()
    made.at(time.monotonic() + 3600, called.set)
    made.close()
    made.at(time.monotonic() - 1, called.set)
    assert "test-alarm" not in [thread.name for thread in threading.enumerate()]
    assert not called.is_set()
