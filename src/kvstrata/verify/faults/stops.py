"""Stop units of a node and start them again, whatever happens in between.

Two things bring them back: the end of the block here, and a timer on the node itself, for the case that this process or
the way to the node is lost meanwhile.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from kvstrata.verify import units
from kvstrata.verify.check import UnableError
from kvstrata.verify.faults.plan import Fault
from kvstrata.verify.shell import Completed, Shell, UnreachableError

TIMER = "kvstrata-verify-restore"
STOP_S = 150.0
START_S = 150.0
# How long a node that takes no command is asked again before its own timer is left to it.
INSIST_S = 60.0
INSIST_POLL_S = 1.0


class NotArmedError(UnableError):
    """The node could not be made to restore itself, so nothing was stopped."""


class TerminatedError(SystemExit):
    """SIGTERM came: no Exception, so that no check takes it for its own trouble. Ends the process as SIGTERM would."""

    def __init__(self) -> None:
        """Exit with what a shell shows for SIGTERM."""
        super().__init__(128 + signal.SIGTERM)


@contextmanager
def in_force(shell: Shell, fault: Fault, restore_after_s: float, say: Callable[[str], None]) -> Iterator[None]:
    """Make the fault for the block, and undo it when the block ends, in whatever way.

    The node itself undoes it after `restore_after_s` seconds, which is longer than the block may take. Raises
    NotArmedError, and has stopped nothing, when it cannot be told to; UnableError when a unit did not stop, or could
    not be started again: then the message says what to run.
    """
    _arm(shell, fault, restore_after_s)
    try:
        _force(shell, fault)
        yield
    finally:
        with signals_held(say, f"starting {', '.join(fault.units)} on {fault.node} first"):
            _restore(shell, fault)


def _arm(shell: Shell, fault: Fault, after_s: float) -> None:
    argv = ["systemd-run", f"--unit={TIMER}", f"--on-active={after_s:.0f}", "--timer-property=AccuracySec=1s"]
    try:
        done = shell.run([*argv, "systemctl", "start", "--no-block", "--", *fault.units])
    except UnableError as error:
        raise NotArmedError(f"nothing was stopped: {error}") from error
    if done.exit_code != 0:
        raise NotArmedError(
            f"{fault.node} could not be told to restore itself, so nothing was stopped (does another verify --faults "
            f"run?): {done.stderr.strip() or done.stdout.strip()}"
        )


def _force(shell: Shell, fault: Fault) -> None:
    if fault.killed:
        shell.run(["systemctl", "kill", "--signal=KILL", "--", *fault.units]).text()
        return
    shell.run(["systemctl", "stop", "--", *fault.units], STOP_S).text()
    running = [name for name, state in units.states(shell, fault.units).items() if state.active == "active"]
    if running:
        raise UnableError(f"still running after systemctl stop: {', '.join(running)}")


def _restore(shell: Shell, fault: Fault) -> None:
    by_hand = f"run there: systemctl start {' '.join(fault.units)}"
    try:
        # Also after a kill: for a unit that systemd has restarted it changes nothing.
        done = _insist(shell, ["systemctl", "start", "--", *fault.units])
    except UnableError as error:
        raise UnableError(f"{error}; {fault.node} will start them itself, or {by_hand}") from error
    if done.exit_code != 0:
        raise UnableError(f"could not be started again on {fault.node} ({done.stderr.strip()}); {by_hand}")
    _insist(shell, ["systemctl", "stop", "--", f"{TIMER}.timer"])


def _insist(shell: Shell, argv: Sequence[str]) -> Completed:
    """Run a command although the node is too busy to take one: what was stopped must not stay so for that."""
    deadline = time.monotonic() + INSIST_S
    while True:
        try:
            return shell.run(argv, START_S)
        except UnreachableError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(INSIST_POLL_S)


def forget_restarts(shell: Shell, names: Sequence[str]) -> None:
    """Set systemd's count of restarts to 0: those that were made here are no sign of a sick unit."""
    shell.run(["systemctl", "reset-failed", "--", *names])


@contextmanager
def signals_held(say: Callable[[str], None], doing: str) -> Iterator[None]:
    """Finish the block although Ctrl-C or SIGTERM comes; what came is raised after it."""
    came: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        came.append(number)
        say(f"interrupted: {doing}")

    with _handling(note):
        yield
    if came:
        raise KeyboardInterrupt if came[0] == signal.SIGINT else TerminatedError


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Have SIGTERM end the block as Ctrl-C would, so that what was stopped is started again."""

    def end(*_: object) -> None:
        raise TerminatedError

    with _handling(end, (signal.SIGTERM,)):
        yield


@contextmanager
def _handling(
    handler: Callable[[int, FrameType | None], None], numbers: Sequence[int] = (signal.SIGINT, signal.SIGTERM)
) -> Iterator[None]:
    # Only the main thread gets signals, and may say what happens on them.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
