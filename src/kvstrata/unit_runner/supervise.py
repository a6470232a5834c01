"""The supervisor of one unit: what systemd's manager does for a service from its start to its end."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kvstrata.unit_runner import folders, identity, linux, process, restart, tree
from kvstrata.unit_runner.errors import StepError
from kvstrata.unit_runner.restart import Ended, StartLimit
from kvstrata.unit_runner.service import Command, Service
from kvstrata.unit_runner.state import Store, own
from kvstrata.unit_runner.values import INFINITY

Told = Callable[[str], object]


class _StoppedError(Exception):
    """Somebody asked to stop."""


class Supervisor:
    """Runs one service in this process, which is its own."""

    def __init__(self, service: Service, store: Store, default_path: str, told: Told) -> None:
        """`told` gets one line, "active" or "failed: ...", once the start has an end."""
        self._service, self._store, self._path, self._told = service, store, default_path, told
        missed = (*service.not_applied, *process.out_of_reach(service))
        self._state = replace(own(service.name), not_applied=missed)
        self._stopping = False
        self._statuses: dict[int, int] = {}
        self._wake, wake_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake_in, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._notify: socket.socket | None = None
        self._variables: dict[str, str] = {}

    def run(self) -> None:
        """Start it, and again where Restart= says so, until it ends for good."""
        linux.subreaper()
        limit = StartLimit(self._service)
        private = None
        if self._service.private_tmp or self._service.dynamic_user:
            private = Path(tempfile.mkdtemp(prefix=f"kvstrata-private-{self._service.name}-"))
        self._place = process.Place(self._store.log(self._service.name), private)
        try:
            while True:
                if not limit.allows(time.monotonic()):
                    self._end("failed", f"started too often: StartLimitBurst={self._service.start_limit_burst}")
                    return
                ended = self._once()
                if self._stopping or ended is None or not restart.again(self._service, ended):
                    failed = not self._stopping and ended is not None and ended.ending != "success"
                    self._end("failed" if failed else "inactive", ended.text if ended else self._state.result)
                    return
                self._tell("auto-restart", ended.text, restarts=self._state.restarts + 1)
                with contextlib.suppress(_StoppedError):
                    self._wait(restart.delay_s(self._service, self._state.restarts), lambda: False)
                if self._stopping:
                    self._end("inactive", ended.text)
                    return
        finally:
            if private is not None:
                shutil.rmtree(private, ignore_errors=True)

    def _once(self) -> Ended | None:
        """Start, wait for its end, clear up; return how it ended, None if it was asked to stop."""
        main, ended = 0, None
        try:
            main = self._start()
            self._tell("active", "", main=main)
            if main:
                self._wait(INFINITY, lambda: main in self._statuses)
                ended = restart.of_status(self._statuses[main])
            elif self._service.remain:
                self._wait(INFINITY, lambda: False)
            else:
                ended = Ended("success", "exit code 0")
        except _StoppedError:
            self._tell("deactivating", self._state.result)
            with contextlib.suppress(StepError):
                self._all("ExecStop", self._service.stop_timeout_s, heed_stop=False)
        except StepError as error:
            ended = Ended("start", str(error))
            # So that a start that failed is told before it is tried again.
            self._tell("failed", str(error))
        self._kill_rest(main)
        if main in self._statuses and ended is None:
            self._state = replace(self._state, result=restart.of_status(self._statuses[main]).text)
        with contextlib.suppress(StepError):
            self._all("ExecStopPost", self._service.stop_timeout_s, heed_stop=False)
        again = not self._stopping and ended is not None and restart.again(self._service, ended)
        folders.clear(self._service, restarting=again)
        return ended

    def _start(self) -> int:
        """Return the main process once the service is ready, 0 for a oneshot that has done its work."""
        service = self._service
        self._statuses.clear()
        self._tell("activating", self._state.result)
        who = identity.of_service(service, os.getuid(), os.getgid())
        folders.prepare(service, who)
        notify = self._listen() if service.type == "notify" else None
        self._variables = identity.environment(service, who, self._path, notify=notify)
        self._state = replace(self._state, invocation=self._variables["INVOCATION_ID"])
        self._all("ExecStartPre", service.start_timeout_s)
        if service.type == "oneshot":
            self._all("ExecStart", INFINITY)
            self._all("ExecStartPost", service.start_timeout_s)
            return 0
        main = process.spawn(service, service.exec_start[0], who, self._variables, self._place)
        self._variables["MAINPID"] = str(main)
        try:
            if service.type == "notify":
                self._await_ready(main)
            self._all("ExecStartPost", service.start_timeout_s)
        except (StepError, _StoppedError):
            self._kill_rest(main)
            raise
        return main

    def _all(self, name: str, timeout_s: float, *, heed_stop: bool = True) -> None:
        for command in self._service.commands.get(name, ()):
            self._one(command, timeout_s, heed_stop)

    def _one(self, command: Command, timeout_s: float, heed_stop: bool) -> None:
        who = identity.of_service(self._service, os.getuid(), os.getgid())
        try:
            pid = process.spawn(self._service, command, who, self._variables, self._place)
            if not self._wait(timeout_s, lambda: pid in self._statuses, heed_stop=heed_stop):
                tree.send([pid], signal.SIGKILL)
                raise StepError(1, f"{command.where}: took longer than {timeout_s:g} s")
            ended = restart.of_status(self._statuses[pid], oneshot=True)
            if ended.ending != "success":
                raise StepError(1, f"{command.where}: {command.path} ended with {ended.text}")
        except StepError:
            if not command.may_fail:
                raise

    def _listen(self) -> str:
        path = str(self._store.folder / f"{self._service.name}.notify")
        Path(path).unlink(missing_ok=True)
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._notify.bind(path)
        # Whoever may write knows its own pid alone; the service's user is not root.
        Path(path).chmod(0o666)
        self._notify.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        return path

    def _await_ready(self, main: int) -> None:
        assert self._notify is not None  # noqa: S101 - _listen() came before
        done = self._wait(self._service.start_timeout_s, lambda: main in self._statuses or self._is_ready(main))
        if main in self._statuses:
            raise StepError(1, f"ended with {restart.of_status(self._statuses[main]).text} before it was ready")
        if not done:
            raise StepError(1, f"was not ready within {self._service.start_timeout_s:g} s")

    def _is_ready(self, main: int) -> bool:
        assert self._notify is not None  # noqa: S101
        while select.select([self._notify], [], [], 0)[0]:
            data, ancillary, _, _ = self._notify.recvmsg(4096, socket.CMSG_SPACE(12))
            sender = next((int.from_bytes(raw[:4], "little") for _, _, raw in ancillary), 0)
            # NotifyAccess=main.
            if sender == main and b"READY=1" in data.splitlines():
                return True
        return False

    def _kill_rest(self, main: int) -> None:
        """End what is left, as KillMode= and TimeoutStopSec= say."""
        service = self._service
        mode = service.kill_mode
        living = tree.descendants(os.getpid())
        if not living or mode == "none":
            return
        first = [pid for pid in living if pid == main] if mode in ("mixed", "process") else living
        tree.send(first, service.kill_signal)
        tree.send(first, signal.SIGCONT)
        main_gone = main not in living
        if mode == "process":
            self._wait(service.stop_timeout_s, lambda: main_gone or main in self._statuses, heed_stop=False)
            if not main_gone and main not in self._statuses:
                tree.send([main], signal.SIGKILL)
                self._wait(INFINITY, lambda: main in self._statuses, heed_stop=False)
            return
        gone = (
            (lambda: main_gone or main in self._statuses)
            if mode == "mixed"
            else lambda: not tree.descendants(os.getpid())
        )
        self._wait(service.stop_timeout_s, gone, heed_stop=False)
        tree.send(tree.descendants(os.getpid()), signal.SIGKILL)
        # Waited for as well: whoever asks then finds none of them.
        self._wait(INFINITY, lambda: not tree.descendants(os.getpid(), dead=True), heed_stop=False)

    def _wait(self, timeout_s: float, condition: Callable[[], bool], *, heed_stop: bool = True) -> bool:
        """Wait until `condition`; return whether it came in time.

        Raises:
            _StoppedError: somebody asked to stop, and `heed_stop`.
        """
        end = time.monotonic() + timeout_s
        while True:
            self._reap()
            if heed_stop and self._stopping:
                raise _StoppedError
            if condition():
                return True
            left = end - time.monotonic()
            if left <= 0:
                return False
            watched: list[int] = [self._wake, *([self._notify.fileno()] if self._notify else [])]
            # Grandchildren that end are reported to their parents alone: look again now and then.
            ready, _, _ = select.select(watched, [], [], min(left, 0.5))
            if self._wake in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake, 4096)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                self._statuses[pid] = status

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _tell(self, active: str, result: str, *, main: int = 0, restarts: int | None = None) -> None:
        self._state = replace(
            self._state,
            active=active,
            result=result,
            since=time.time(),
            main_pid=self._state.main_pid if active == "deactivating" else main,
            restarts=self._state.restarts if restarts is None else restarts,
        )
        self._store.write(self._state)
        if active in ("active", "failed", "inactive"):
            self._told(active if active == "active" else f"{active}: {result}")

    def _end(self, active: str, result: str) -> None:
        self._state = replace(self._state, supervisor=0)
        self._tell(active, result)
