"""Whatever happens while units are stopped, they are started again."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import AbstractContextManager

import pytest

from kvstrata.verify.check import UnableError
from kvstrata.verify.faults import plan, stops
from kvstrata.verify.faults.plan import Fault
from kvstrata.verify.shell import UnreachableError
from tests.verify.fakes.shell import FakeShell

UNITS = ("kvrocks@d0.service", "lmcache.service")
STOPPED = Fault("faults.node", "node2", UNITS, False, "node1", plan.ENGINE)
KILLED = Fault("faults.store_killed", "node2", UNITS[:1], True, "node1", plan.STORE)
STARTED = "systemctl start -- kvrocks@d0.service lmcache.service"
DISARMED = "systemctl stop -- kvstrata-verify-restore.timer"


class Systemd:
    """Units that stop and start as they are told."""

    def __init__(self) -> None:
        self.down: set[str] = set()
        self.stubborn = False
        self.shell = FakeShell(
            {
                "systemd-run": "",
                "systemctl kill": "",
                "systemctl stop": self._stop,
                "systemctl start": self._start,
                "systemctl show": self._show,
            }
        )

    def _stop(self, argv: Sequence[str]) -> str:
        if not self.stubborn:
            self.down |= set(argv[3:])
        return ""

    def _start(self, argv: Sequence[str]) -> str:
        self.down -= set(argv[3:])
        return ""

    def _show(self, argv: Sequence[str]) -> str:
        units = argv[argv.index("--") + 1 :]
        return "\n\n".join(f"Id={unit}\nActiveState={'inactive' if unit in self.down else 'active'}" for unit in units)


def test_units_are_down_in_the_block_and_up_after_it() -> None:
    systemd = Systemd()
    with stops.in_force(systemd.shell, STOPPED, 600, lambda text: None):
        assert systemd.down == set(UNITS)
    assert systemd.down == {"kvstrata-verify-restore.timer"}
    assert systemd.shell.ran[-2:] == [STARTED, DISARMED]


def test_the_node_is_told_to_restore_itself_before_anything_is_stopped() -> None:
    systemd = Systemd()
    with stops.in_force(systemd.shell, STOPPED, 600, lambda text: None):
        pass
    assert systemd.shell.ran[0] == (
        "systemd-run --unit=kvstrata-verify-restore --on-active=600 --timer-property=AccuracySec=1s "
        "systemctl start --no-block -- kvrocks@d0.service lmcache.service"
    )


def test_where_the_node_cannot_restore_itself_nothing_is_stopped() -> None:
    systemd = Systemd()
    systemd.shell.exits["systemd-run"] = 1
    with pytest.raises(stops.NotArmedError, match="nothing was stopped"), _made(systemd):
        pytest.fail("the block ran")
    assert len(systemd.shell.ran) == 1


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, stops.TerminatedError])
def test_units_are_started_again_whatever_ends_the_block(error: type[BaseException]) -> None:
    systemd = Systemd()
    with pytest.raises(error), _made(systemd):
        raise error
    assert not set(UNITS) & systemd.down


def test_sigterm_ends_the_block_and_units_are_started_again() -> None:
    systemd, before = Systemd(), signal.getsignal(signal.SIGTERM)
    with pytest.raises(stops.TerminatedError), stops.sigterm_raises(), _made(systemd):
        os.kill(os.getpid(), signal.SIGTERM)
    assert "systemctl stop -- kvrocks@d0.service lmcache.service" in systemd.shell.ran
    assert not set(UNITS) & systemd.down
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_units_are_started_is_raised_only_after_that(number: signal.Signals) -> None:
    systemd, said = Systemd(), list[str]()

    def start(argv: Sequence[str]) -> str:
        os.kill(os.getpid(), number)
        return systemd._start(argv)

    systemd.shell.answers["systemctl start"] = start
    with (
        pytest.raises((KeyboardInterrupt, stops.TerminatedError)),
        stops.in_force(systemd.shell, STOPPED, 600, said.append),
    ):
        pass
    assert systemd.shell.ran[-2:] == [STARTED, DISARMED]
    assert said == ["interrupted: starting kvrocks@d0.service, lmcache.service on node2 first"]


def test_a_unit_that_does_not_stop_is_an_error_and_all_are_started() -> None:
    systemd = Systemd()
    systemd.stubborn = True
    with pytest.raises(UnableError, match=r"still running after systemctl stop: kvrocks@d0\.service"), _made(systemd):
        pytest.fail("the block ran")
    assert STARTED in systemd.shell.ran


def test_a_unit_that_does_not_start_is_told_with_the_command_and_the_node_keeps_its_timer() -> None:
    systemd = Systemd()
    systemd.shell.exits["systemctl start"] = 1
    with (
        pytest.raises(UnableError, match=r"run there: systemctl start kvrocks@d0\.service lmcache\.service"),
        _made(systemd),
    ):
        pass
    assert DISARMED not in systemd.shell.ran


def test_a_node_that_takes_no_command_for_a_while_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stops, "INSIST_POLL_S", 0.01)
    systemd, refused = Systemd(), list[str]()

    def start(argv: Sequence[str]) -> str:
        if len(refused) < 3:
            refused.append("busy")
            raise UnreachableError("Timeout opening channel.")
        return systemd._start(argv)

    systemd.shell.answers["systemctl start"] = start
    with _made(systemd):
        pass
    assert not set(UNITS) & systemd.down
    assert systemd.shell.ran[-1] == DISARMED


def test_a_node_that_takes_no_command_at_first_is_left_alone() -> None:
    systemd = Systemd()
    systemd.shell.unreachable = "Timeout opening channel."
    with pytest.raises(stops.NotArmedError, match="nothing was stopped: Timeout"), _made(systemd):
        pytest.fail("the block ran")


def test_a_node_that_is_lost_meanwhile_is_told_to_restore_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stops, "INSIST_S", 0.0)
    systemd = Systemd()
    with pytest.raises(UnableError, match="node2 will start them itself"), _made(systemd):
        systemd.shell.unreachable = "the connection was lost"


def test_a_killed_unit_is_killed_and_not_stopped() -> None:
    systemd = Systemd()
    with stops.in_force(systemd.shell, KILLED, 600, lambda text: None):
        assert systemd.shell.ran[-1] == "systemctl kill --signal=KILL -- kvrocks@d0.service"
    assert not any(line.startswith("systemctl stop -- kvrocks") for line in systemd.shell.ran)


def _made(systemd: Systemd) -> AbstractContextManager[None]:
    return stops.in_force(systemd.shell, STOPPED, 600, lambda text: None)
