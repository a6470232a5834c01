"""How many nodes are looked at at the same time."""

from __future__ import annotations

import threading
import time

import pytest

from kvstrata.verify import pace
from kvstrata.verify.pace import FEW, Load, Paced


class Busy(Load):
    """A program that always has more to do than it can."""

    def measured(self) -> bool:
        time.sleep(0.001)
        return True


class Idle(Load):
    """A program that only waits."""

    def measured(self) -> bool:
        return False


class Waiting:
    """Jobs that wait until they are let go, and how many of them do."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.go = threading.Event()

    def __call__(self) -> None:
        self.begun.release()
        self.go.wait(20)

    def at_least(self, count: int) -> bool:
        return all(self.begun.acquire(timeout=10) for _ in range(count))

    def another(self, timeout_s: float) -> bool:
        return self.begun.acquire(timeout=timeout_s)


def test_jobs_that_wait_run_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "Load", Idle)
    job = Waiting()
    paced = Paced([job] * 200, "test")
    assert job.at_least(200)
    while paced.last_begun is None:
        time.sleep(0.001)
    job.go.set()


def test_a_busy_program_begins_a_few_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "Load", Busy)
    monkeypatch.setattr(pace, "MOST_S", 20.0)
    job = Waiting()
    paced = Paced([job] * 50, "test")
    assert job.at_least(FEW)
    assert not job.another(0.3)
    assert paced.last_begun is None
    # Those that ended make room.
    job.go.set()
    assert job.at_least(50 - FEW)


def test_jobs_that_hang_keep_the_others_waiting_no_longer_than_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "Load", Busy)
    monkeypatch.setattr(pace, "MOST_S", 0.01)
    job = Waiting()
    Paced([job] * 60, "test")
    assert job.at_least(60)
    job.go.set()


def test_a_job_that_breaks_makes_room_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "Load", Busy)
    monkeypatch.setattr(pace, "MOST_S", 20.0)
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    done = threading.Semaphore(0)

    def breaks() -> None:
        done.release()
        raise ValueError

    Paced([breaks] * 50, "test")
    assert all(done.acquire(timeout=10) for _ in range(50))


def test_work_is_told_from_waiting() -> None:
    idle = Load()
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            sum(range(1000))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        assert any([idle.measured() for _ in range(60)][30:])
    finally:
        ended.set()
        for thread in threads:
            thread.join()
