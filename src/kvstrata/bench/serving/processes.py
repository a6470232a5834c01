"""Processes of a stack on this machine: each in a session of its own, awaited, counted and always ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from kvstrata.bench.ending import end_if_told
from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving import guard
from kvstrata.paths import PROJECT

_POLL_S = 0.2
_TAIL_LINES = 15
_LINE_CHARS = 300


class Child:
    """One program with whatever it starts itself."""

    def __init__(self, name: str, argv: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        """Start it; its output is added to `log`."""
        self.name = name
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log_begin = log.stat().st_size if log.exists() else 0
        with log.open("ab") as out:
            # A session of its own: Ctrl-C must reach the benchmark alone, which then ends this in order.
            self._process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=dict(env),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process, which is its session's id too."""
        return self._process.pid

    def await_health(self, healthy: Callable[[], bool], timeout_s: float) -> float:
        """Wait until it is healthy; return the seconds that took.

        Raises:
            BenchError: it ended, or was not healthy in time; with the end of its log.
        """
        began = time.monotonic()
        while True:
            end_if_told()
            if self._process.poll() is not None:
                raise BenchError(f"{self.name} ended with {self._process.returncode} at its start; {self.tail()}")
            if healthy():
                return time.monotonic() - began
            if time.monotonic() - began > timeout_s:
                raise BenchError(f"{self.name} was not healthy within {timeout_s:g} s; {self.tail()}")
            time.sleep(_POLL_S)

    def ended(self) -> str | None:
        """Return how it ended, None while it runs."""
        code = self._process.poll()
        return None if code is None else f"{self.name} ended with {code}; {self.tail()}"

    def tail(self, lines: int = _TAIL_LINES) -> str:
        """Return the end of what it said since it was started."""
        with self._log.open("rb") as file:
            file.seek(self._log_begin)
            said = file.read().decode(errors="replace").splitlines()[-lines:]
        # vLLM prints its whole configuration in one line.
        return f"the end of {self._log}:\n" + "\n".join(line[:_LINE_CHARS] for line in said)

    def cpu_s(self) -> float:
        """Return the processor seconds that its session used, children included that are gone."""
        return sum(_cpu_s(pid) for pid in guard.members(self.pid))

    def io_bytes(self) -> dict[str, int]:
        """Return what its processes read and wrote (proc_pid_io(5)): from and to storage, and of the kernel in all."""
        total = dict.fromkeys(("read_bytes", "write_bytes", "rchar", "wchar"), 0)
        for pid in guard.members(self.pid):
            with contextlib.suppress(OSError):
                for line in (guard.PROC / str(pid) / "io").read_text().splitlines():
                    name, _, value = line.partition(": ")
                    if name in total:
                        total[name] += int(value)
        return total

    def end(self, grace_s: float = 30.0) -> None:
        """End it: SIGTERM, and after `grace_s` seconds SIGKILL for all of its session. Safe to call twice."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        # Also what it left behind: an engine's workers outlive a killed API server.
        guard.kill(self.pid)
        self._process.wait()


class Processes:
    """All of a stack's, and the guard that ends them if this program is killed. A context manager."""

    def __init__(self, logs: Path) -> None:
        """Keep logs below `logs`."""
        self._logs = logs
        self._children: list[Child] = []
        self._guard: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Processes:
        """Start the guard."""
        self._guard = subprocess.Popen(
            [sys.executable, "-m", guard.__name__],
            stdin=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(PROJECT / "src")},
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        """End everything, then the guard."""
        self.end()
        if self._guard is not None and self._guard.stdin is not None:
            with contextlib.suppress(OSError):
                self._guard.stdin.close()
            self._guard.wait()

    def start(self, name: str, argv: Sequence[str], env: Mapping[str, str], log: str) -> Child:
        """Start a program; `log` is its file's name."""
        child = Child(name, argv, env, self._logs / log)
        self._children.append(child)
        self._tell(f"+{child.pid}")
        return child

    @property
    def running(self) -> Mapping[str, Child]:
        """What was started and not ended, by name."""
        return {child.name: child for child in self._children}

    def dead(self) -> str | None:
        """Return how the first that ended by itself ended, None when all run."""
        return next((said for child in self._children if (said := child.ended())), None)

    def end_one(self, child: Child) -> None:
        """End one of them, and forget it."""
        child.end()
        if child in self._children:
            self._children.remove(child)
            self._tell(f"-{child.pid}")

    def end(self) -> None:
        """End all that run, the last one first."""
        while self._children:
            child = self._children[-1]
            child.end()
            self._children.pop()
            self._tell(f"-{child.pid}")

    def _tell(self, line: str) -> None:
        if self._guard is not None and self._guard.stdin is not None:
            # A guard that somebody killed must not stop the ending of the others.
            with contextlib.suppress(OSError):
                self._guard.stdin.write(f"{line}\n".encode())
                self._guard.stdin.flush()


def _cpu_s(pid: int) -> float:
    try:
        fields = (guard.PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    # utime, stime, and cutime, cstime of children that were waited for: proc_pid_stat(5), fields 14 to 17.
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
