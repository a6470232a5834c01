from __future__ import annotations

import time

import pytest

from kvstrata.l2.breaker import CLOSED, HALF_OPEN, OPEN, Breaker


def test_some_failures_in_a_row_open_it_and_only_the_last_of_them_tells_so() -> None:
    breaker = Breaker(threshold=3)
    assert [breaker.failed("a"), breaker.failed("b")] == [False, False]
    assert breaker.closed
    assert breaker.failed("c") is True
    assert (breaker.state, breaker.closed, breaker.reason, breaker.opened) == (OPEN, False, "c", 1)
    assert breaker.failed("d") is False
    assert breaker.opened == 1


def test_a_success_between_failures_begins_the_row_anew() -> None:
    breaker = Breaker(threshold=2)
    for _ in range(5):
        assert breaker.failed("x") is False
        breaker.succeeded()
    assert breaker.closed


def test_a_refusal_opens_it_at_once() -> None:
    breaker = Breaker(threshold=100)
    assert breaker.failed("refused", at_once=True) is True
    assert not breaker.closed


def test_a_probe_half_opens_it_and_decides() -> None:
    breaker = Breaker(threshold=1)
    breaker.half_open()
    assert breaker.state == CLOSED, "there is nothing to probe"
    breaker.failed("x")
    breaker.half_open()
    assert breaker.state == HALF_OPEN
    assert not breaker.closed
    assert breaker.failed("probe") is False
    assert breaker.state == OPEN
    breaker.half_open()
    breaker.succeeded()
    assert breaker.state == CLOSED
    assert breaker.opened == 1


def test_the_wait_before_a_probe_doubles_up_to_a_limit_and_is_jittered_by_up_to_half() -> None:
    for _ in range(50):
        breaker = Breaker(threshold=1, first_s=0.2, last_s=1.0)
        breaker.failed("x")
        for whole in (0.2, 0.4, 0.8, 1.0, 1.0):
            assert whole / 2 <= breaker.next_probe_s() <= whole
        breaker.half_open()
        breaker.succeeded()
        breaker.failed("x")
        assert breaker.next_probe_s() <= 0.2, "a success begins anew"


def test_the_nodes_of_a_cluster_do_not_knock_in_the_same_instant() -> None:
    waits = []
    for _ in range(20):
        breaker = Breaker(threshold=1)
        breaker.failed("x")
        waits.append(breaker.next_probe_s())
    assert len({round(wait, 6) for wait in waits}) > 10


def test_the_time_of_the_last_good_round_trip_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    breaker = Breaker()
    assert breaker.last_ok is None
    monkeypatch.setattr(time, "time", lambda: 1234.5)
    breaker.succeeded()
    assert breaker.last_ok == 1234.5
    breaker.failed("x")
    assert breaker.last_ok == 1234.5
