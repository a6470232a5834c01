"""A process of its own for each case: what hangs or crashes in it costs a row, and nothing of it stays behind.

Servers, mounts and networks belong to that process: they end with it, also when it is killed.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_CLONE_NEWNS = 0x00020000
_CLONE_NEWNET = 0x40000000
_MS_REC, _MS_PRIVATE, _MS_REMOUNT = 0x4000, 0x40000, 32
_PIPE_BYTES = 1 << 16
_LMCACHE = "lmcache.v1.distributed.l2_adapters"


class NotPossibleError(RuntimeError):
    """This machine cannot make that fault; says why."""


@dataclass(frozen=True)
class Outcome:
    """What became of a task in a process of its own."""

    value: Any
    failure: str
    """Why there is no value: its exception, its signal, or that time ran out; empty when there is one."""


class Child:
    """A running task; `kill` or `wait` ends it."""

    def __init__(self, task: Callable[[], Any], log: Path) -> None:
        """Fork and run the task, its output in `log`. Fork before starting any thread."""
        if threading.active_count() > 1:
            raise RuntimeError(f"to fork beside threads is not safe: {threading.enumerate()}")
        sys.stdout.flush()
        sys.stderr.flush()
        self._pipe, writing = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(self._pipe)
            _run(task, writing, log)
        os.close(writing)
        self._status: int | None = None

    def wait(self, timeout_s: float) -> Outcome:
        """Return what the task returned; kill it when it takes longer."""
        until = time.monotonic() + timeout_s
        data = bytearray()
        while True:
            ready = select.select([self._pipe], [], [], max(0.0, until - time.monotonic()))[0]
            part = os.read(self._pipe, _PIPE_BYTES) if ready else b""
            if not part:
                break
            data += part
        late = not ready
        if late:
            self.kill()
        status = self._reap()
        os.close(self._pipe)
        if late:
            return Outcome(None, f"not done within {timeout_s:g} s, killed")
        if os.WIFSIGNALED(status):
            return Outcome(None, f"ended by {signal.Signals(os.WTERMSIG(status)).name}")
        if not data:
            return Outcome(None, f"ended with {os.waitstatus_to_exitcode(status)} and no result")
        value, failure = pickle.loads(bytes(data))  # noqa: S301 - from our own child
        return Outcome(value, failure)

    def kill(self) -> None:
        """End it with SIGKILL."""
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)

    def _reap(self) -> int:
        if self._status is None:
            self._status = os.waitpid(self.pid, 0)[1]
        return self._status


def forked(task: Callable[[], Any], timeout_s: float, log: Path) -> Outcome:
    """Run a task in a process of its own, and see what became of it."""
    child = Child(task, log)
    try:
        return child.wait(timeout_s)
    except BaseException:
        child.kill()
        raise


def die_with_parent() -> None:
    """Let the kernel end this process when the one that started it ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def prepare() -> None:
    """Make ready for children: import once what takes seconds, and be the parent of what they leave behind.

    SIGTERM ends this process like any other exception from now on, so that it cleans up on its way out.
    """
    signal.signal(signal.SIGTERM, _ended)
    for module in ("kvstrata.l2.adapter", *(f"{_LMCACHE}.{name}_l2_adapter" for name in ("plugin", "resp", "valkey"))):
        importlib.import_module(module)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def await_orphans() -> None:
    """Return when no child is left: a folder can be removed once nothing writes to it."""
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def private_network() -> None:
    """Give this process, and what it starts from now on, a loopback of its own."""
    _unshare(_CLONE_NEWNET, "network")
    _command("ip", "link", "set", "lo", "up")


def slow_loopback(*discipline: str) -> None:
    """Put a queueing discipline on the private loopback: what tc(8) takes after `root`."""
    _command("tc", "qdisc", "replace", "dev", "lo", "root", *discipline)


def quick_loopback() -> None:
    """Take the queueing discipline off again."""
    _command("tc", "qdisc", "del", "dev", "lo", "root")


def small_filesystem(folder: Path, size: int) -> None:
    """Mount a filesystem of `size` bytes on `folder`, seen by this process and what it starts only."""
    _unshare(_CLONE_NEWNS, "mount")
    _mount(b"none", Path("/"), None, _MS_REC | _MS_PRIVATE, None)
    folder.mkdir(parents=True, exist_ok=True)
    _mount(b"tmpfs", folder, b"tmpfs", 0, f"size={size}")


def resize_filesystem(folder: Path, size: int) -> None:
    """Give the small filesystem another size."""
    _mount(b"tmpfs", folder, b"tmpfs", _MS_REMOUNT, f"size={size}")


def _ended(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


def _run(task: Callable[[], Any], writing: int, log: Path) -> NoReturn:
    status = 1
    try:
        die_with_parent()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        try:
            result = (task(), "")
        except Exception as error:
            traceback.print_exc()
            result = (None, f"{type(error).__name__}: {error}")
        data = memoryview(pickle.dumps(result))
        while data:
            data = data[os.write(writing, data) :]
        status = 0
    finally:
        os._exit(status)


def _unshare(flags: int, what: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags):
        raise NotPossibleError(f"no {what} namespace of its own: {os.strerror(ctypes.get_errno())}")


def _mount(source: bytes, target: Path, kind: bytes | None, flags: int, options: str | None) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    data = None if options is None else options.encode()
    if libc.mount(source, bytes(target), kind, ctypes.c_ulong(flags), data):
        raise NotPossibleError(f"mount of {target} ({options}): {os.strerror(ctypes.get_errno())}")


def _command(*words: str) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=False)
    except OSError as error:
        raise NotPossibleError(f"{words[0]}: {error}") from error
    if done.returncode:
        raise NotPossibleError(f"{' '.join(words)}: {(done.stderr or done.stdout).strip()}")
