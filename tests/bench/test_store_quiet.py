from __future__ import annotations

import pytest

from kvstrata.bench.quiet import QuietWait


class Machine:
    """A clock that only sleeping moves, and others who use these cores, one second after the other."""

    def __init__(self, *cores: float) -> None:
        self.now = self.used = 0.0
        self.cores = list(cores)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.used += seconds * self.cores.pop(0)

    def wait(self, most_s: float) -> QuietWait:
        return QuietWait(2, most_s, lambda: self.used, lambda: self.now, self.sleep)


def test_a_quiet_machine_is_waited_for_one_second() -> None:
    machine = Machine(0.1)
    machine.wait(60)()
    assert machine.now == 1


def test_a_busy_machine_is_waited_for_until_it_is_quiet() -> None:
    machine = Machine(2.0, 1.0, 0.3, 0.1, 9.9)
    wait = machine.wait(60)
    wait()
    assert (machine.now, wait.waited_s) == (4, 4)


def test_waiting_ends_with_its_seconds_over_all_calls() -> None:
    machine = Machine(*[2.0] * 10)
    wait = machine.wait(2.5)
    wait()
    wait()
    assert machine.now == pytest.approx(2.5)


def test_without_seconds_nothing_is_waited_for() -> None:
    machine = Machine()
    machine.wait(0)()
    assert machine.now == 0
