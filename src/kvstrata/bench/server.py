"""One server process under test: started, awaited, asked what it did, and always ended."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from kvstrata.bench.counters import Counters, parse_stats
from kvstrata.bench.errors import BenchError
from kvstrata.bench.procfs import Usage, process_usage
from kvstrata.bench.resp import Connection, WrongAnswerError

START_S = 60.0
STOP_S = 60.0
_POLL_S = 0.01
_ADMIN_BYTES = 1 << 20
# Blocks of 512 bytes: the kernel's own unit for ru_inblock and ru_oublock (kernel/sys.c, task_io_get_inblock).
_BLOCK = 512
_PR_SET_PDEATHSIG = 1


class Server:
    """A running server; `stop` must be called, whatever happens."""

    def __init__(self, command: Sequence[str], port: int, env: Mapping[str, str], log: Path) -> None:
        """Start it; `port` is where its configuration has it listen."""
        self.port = port
        self._log = log
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=dict(env),
                preexec_fn=_die_with_parent,
            )

    def ready(self) -> None:
        """Wait until it answers PING.

        Raises:
            BenchError: it ended, or did not answer in time; with the end of its log.
        """
        over = time.monotonic() + START_S
        while time.monotonic() < over:
            if self._process.poll() is not None:
                raise BenchError(f"the server ended with {self._process.returncode} at its start:\n{self.log_tail()}")
            try:
                if self.ask("PING") == "PONG":
                    return
            except (OSError, WrongAnswerError):
                time.sleep(_POLL_S)
        raise BenchError(f"the server did not answer within {START_S:.0f} s:\n{self.log_tail()}")

    def ask(self, *words: str) -> str | list[str]:
        """Send one command on a connection of its own and return the answer."""
        connection = Connection(self.port, _ADMIN_BYTES, START_S)
        try:
            return connection.command(*words)
        finally:
            connection.close()

    def config(self) -> dict[str, str]:
        """Return its effective configuration."""
        answer = self.ask("CONFIG", "GET", "*")
        return dict(zip(answer[::2], answer[1::2], strict=True)) if isinstance(answer, list) else {}

    def counters(self) -> Counters:
        """Return what Kvrocks counted since its start."""
        return parse_stats(str(self.ask("STATS")))

    def busy(self) -> bool:
        """Return whether Kvrocks flushes or compacts now.

        Immutable memtables and pending compactions do not count: either may wait for ever (seen with 2.10.1).
        """
        keys = ("num_running_flushes", "memtable_flush_pending", "num_running_compactions")
        lines = str(self.ask("INFO", "rocksdb")).splitlines()
        info = dict(line.split(":", 1) for line in lines if ":" in line)
        return any(info[key] != "0" for key in keys)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def usage(self) -> Usage:
        """Return what the process used since its start."""
        return process_usage(self._process.pid)

    def stop(self) -> Usage:
        """End it, politely at first; return what it used in all its life, as wait4(2) says.

        Raises:
            BenchError: it had to be killed, so what it wrote is not complete; or it had ended by itself.
        """
        if self._process.returncode is not None:
            return Usage()
        self._process.send_signal(signal.SIGTERM)
        if self._process.returncode is not None:  # a signal is sent to what runs: it looked first
            raise BenchError(f"the server ended by itself, with {self._process.returncode}:\n{self.log_tail()}")
        usage = self._wait(STOP_S)
        if usage is None:
            self.kill()
            raise BenchError(f"the server did not end within {STOP_S:.0f} s after SIGTERM:\n{self.log_tail()}")
        return usage

    def kill(self) -> None:
        """End it at once."""
        if self._process.returncode is None:
            self._process.kill()
        if self._process.returncode is None:  # as in stop()
            self._wait(STOP_S)

    def log_tail(self, lines: int = 12) -> str:
        """Return the end of what it printed."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    def _wait(self, seconds: float) -> Usage | None:
        over = time.monotonic() + seconds
        while True:
            pid, status, usage = os.wait4(self._process.pid, os.WNOHANG)
            if pid:
                self._process.returncode = os.waitstatus_to_exitcode(status)
                return Usage(usage.ru_inblock * _BLOCK, usage.ru_oublock * _BLOCK, usage.ru_utime + usage.ru_stime)
            if time.monotonic() > over:
                return None
            time.sleep(_POLL_S)


def free_port() -> int:
    """Return a port of loopback that was free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def version(binary: Path) -> str:
    """Return the first line of what a server says about its version."""
    for flag in ("--version", "-v"):
        done = subprocess.run([binary, flag], capture_output=True, text=True, timeout=30, check=False)
        if done.returncode == 0 and done.stdout.strip():
            return done.stdout.strip().splitlines()[0]
    raise BenchError(f"{binary} does not say its version: {done.stderr.strip() or done.stdout.strip()}")


def _die_with_parent() -> None:
    # A benchmark killed with SIGKILL must not leave servers behind.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
