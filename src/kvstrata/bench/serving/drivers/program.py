"""Runs another load generator and says what it said when it fails."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from kvstrata.bench.errors import BenchError

_LINES = 15
_END_S = 20.0


def run(name: str, command: Sequence[str], folder: Path, timeout_s: float, extra: Mapping[str, str]) -> str | None:
    """Run a program to its end, its output in `folder`/NAME.log; after `timeout_s` it is stopped.

    extra: variables for its environment.

    Returns:
        None, or why its results may not be whole.

    Raises:
        BenchError: it could not be started, or failed; with the end of what it printed.
    """
    log = folder / f"{name}.log"
    environment = {**os.environ, **extra}
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=folder, start_new_session=True
            )
        except OSError as error:
            raise BenchError(f"{name}: cannot start {command[0]}: {error}") from error
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            _stop(process)
            return f"{name} had not ended after {timeout_s:.0f} s and was stopped"
        except BaseException:
            _stop(process)
            raise
    if code:
        raise BenchError(f"{name} ended with {code}; it said last:\n{tail(log)}")
    return None


def tail(log: Path) -> str:
    """Return the last lines of a log."""
    return "\n".join(log.read_text(errors="replace").strip().splitlines()[-_LINES:])


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the program and all that it started."""
    for sign in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
            process.wait(_END_S)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
