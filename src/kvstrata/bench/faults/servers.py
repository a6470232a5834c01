"""One real store on loopback, which can be stopped, killed, held and configured while a case runs."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from kvstrata.bench.faults.isolate import NotPossibleError, die_with_parent
from kvstrata.bench.server import free_port
from kvstrata.l2.wire import Connection, Reply, ReplyError, WireError, command

ENGINES = ("kvrocks", "redis")
PASSWORD = "fault matrix"  # noqa: S105 - of servers on loopback that live for seconds
MIB = 1 << 20
_START_S = 30.0
_STOP_S = 30.0
_ADMIN_S = 20.0
_POLL_S = 0.01

# What a restart brings back is there in both: Redis by its append-only file, Kvrocks by its nature.
_REDIS = {
    "save": '""',
    "appendonly": "yes",
    "appendfsync": "no",
    "auto-aof-rewrite-percentage": "0",
    "protected-mode": "no",
}
# The cache profile of roles/kvrocks, with memtables small enough for cases of some ten MiB.
_KVROCKS = {
    "daemonize": "no",
    "supervised": "no",
    "workers": "2",
    "rocksdb.enable_blob_files": "yes",
    "rocksdb.min_blob_size": "65536",
    "rocksdb.compression": "no",
    "rocksdb.wal_ttl_seconds": "0",
    "rocksdb.wal_size_limit_mb": "0",
    "rocksdb.write_options.disable_wal": "yes",
    "rocksdb.write_buffer_size": "32",
    "rocksdb.max_write_buffer_number": "4",
    "rocksdb.blob_garbage_collection_age_cutoff": "10",
    "rocksdb.block_cache_size": "64",
}


class StoreServer:
    """A server that is not started yet; its port is taken for good."""

    def __init__(self, engine: str, binary: Path, folder: Path, directives: Mapping[str, str] | None = None) -> None:
        """Prepare its configuration in `folder`, which holds its data too; `directives` add to it or replace."""
        self.engine = engine
        self.port = free_port()
        self.folder = folder
        self._binary = binary
        self._process: subprocess.Popen[bytes] | None = None
        self._admin: Connection | None = None
        data = folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        fixed = {"bind": "127.0.0.1", "port": str(self.port), "dir": str(data), "requirepass": f'"{PASSWORD}"'}
        own = _REDIS if engine == "redis" else _KVROCKS
        lines = [f"{name} {value}\n" for name, value in {**fixed, **own, **(directives or {})}.items()]
        (folder / "store.conf").write_text("".join(lines))

    def start(self) -> StoreServer:
        """Start it, and wait until it answers and has loaded its data."""
        config = self.folder / "store.conf"
        words = [str(self._binary), str(config)] if self.engine == "redis" else [str(self._binary), "-c", str(config)]
        with (self.folder / "store.log").open("ab") as out:
            self._process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, preexec_fn=die_with_parent
            )
        until = time.monotonic() + _START_S
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise RuntimeError(f"{self.engine} ended with {self._process.returncode}: {self.log_tail()}")
            try:
                self.ask("PING")
                return self
            except (WireError, ReplyError):
                time.sleep(_POLL_S)
        raise RuntimeError(f"{self.engine} did not answer within {_START_S:g} s: {self.log_tail()}")

    def stop(self) -> None:
        """End it with SIGTERM, and wait for that."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it with SIGKILL."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Hold it: connections are accepted by the kernel, and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def ask(self, *words: bytes | str | int) -> Reply:
        """Send one command on a connection apart from any adapter's; raises ReplyError or WireError."""
        connection = self._connected()
        try:
            return connection.call(*words)
        except WireError:
            self._drop()
            raise

    def pipeline(self, *commands: bytes) -> list[Reply]:
        """Send commands made by wire.command together; errors are among the replies."""
        return self._connected().pipeline(commands)

    def await_writes(self, timeout_s: float) -> float | None:
        """Wait until a small write is taken; return the seconds that took, or None when time ran out."""
        began = time.monotonic()
        while time.monotonic() - began < timeout_s:
            try:
                self.ask("SET", "probe", os.urandom(4096))
                return time.monotonic() - began
            except (WireError, ReplyError):
                time.sleep(_POLL_S)
        return None

    def compact(self) -> None:
        """Let Kvrocks flush and compact all that was written until now, and wait for that."""
        until = time.monotonic() + _START_S
        asked = False
        while time.monotonic() < until:
            if "is_compacting:no" in str(self.ask("INFO")):
                if asked:
                    return
                with contextlib.suppress(
                    ReplyError
                ):  # one of the adapter's own began just now: it may have missed some
                    self.ask("COMPACT")
                    asked = True
            time.sleep(_POLL_S)
        raise RuntimeError(f"Kvrocks did not end its compaction within {_START_S:g} s")

    def fill(self, count: int) -> None:
        """Write `count` values of 1 MiB of other programs' data, as far as they are taken."""
        for number in range(count):
            reply = self.pipeline(command("SET", f"ballast:{number}", os.urandom(MIB)))[0]
            if isinstance(reply, ReplyError):
                return

    def log_tail(self) -> str:
        """Return the end of what it printed."""
        return " | ".join((self.folder / "store.log").read_text(errors="replace").splitlines()[-4:])

    def _connected(self) -> Connection:
        if self._admin is None:
            connection = Connection(("127.0.0.1", self.port), _ADMIN_S, _ADMIN_S)
            connection.deadline = time.monotonic() + _ADMIN_S
            try:
                connection.call("AUTH", PASSWORD)
            except (WireError, ReplyError):
                connection.close()
                raise
            self._admin = connection
        self._admin.deadline = time.monotonic() + _ADMIN_S
        return self._admin

    def _drop(self) -> None:
        if self._admin is not None:
            self._admin.close()
            self._admin = None

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _end(self, number: int) -> None:
        self._drop()
        if self._process is None:
            return
        self._signal(number)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_STOP_S)
            raise RuntimeError(f"{self.engine} did not end within {_STOP_S:g} s after signal {number}") from None


def find_binary(engine: str, kvrocks: Path) -> Path:
    """Return the server's binary.

    Raises:
        NotPossibleError: it is not there.
    """
    if engine == "kvrocks":
        if not kvrocks.is_file():
            raise NotPossibleError(f"no Kvrocks at {kvrocks} (docs/kvrocks.md says where binaries come from)")
        return kvrocks
    found = shutil.which("redis-server")
    if not found:
        raise NotPossibleError("no redis-server on PATH: apt-get install redis-server")
    return Path(found)
