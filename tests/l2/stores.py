"""Real stores on loopback: redis-server always, Kvrocks too where its binary is at hand."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from kvstrata.bench.server import free_port
from kvstrata.l2.wire import Connection, Reply, WireError, Word
from kvstrata.paths import cache_dir

KVROCKS = cache_dir() / "bin" / "kvrocks"
"""Where `kvstrata artifacts` and developers put the binary."""

KINDS = ("redis", "kvrocks")


class Store:
    """One server process of our own."""

    def __init__(self, kind: str, folder: Path, extra: Mapping[str, object] | None = None) -> None:
        self.kind = kind
        self._extra = dict(extra or {})
        self.folder = folder
        self.port = free_port()
        self._log = folder / "log"
        self._process = subprocess.Popen(
            self._argv(), cwd=folder, stdout=self._log.open("wb"), stderr=subprocess.STDOUT
        )
        self._await()

    def _argv(self) -> list[str]:
        if self.kind == "redis":
            binary = shutil.which("redis-server")
            if binary is None:
                raise RuntimeError("redis-server is not installed: apt-get install redis-server (package redis-server)")
            settings: dict[str, object] = {
                "port": self.port,
                "bind": "127.0.0.1",
                "dir": self.folder,
                "save": "",
                "appendonly": "no",
            }
            settings |= self._extra
            return [binary, *(word for name, value in settings.items() for word in (f"--{name}", str(value)))]
        lines: dict[str, object] = {
            **{"bind": "127.0.0.1", "port": self.port, "dir": self.folder, "workers": 2, "daemonize": "no"},
            **{"log-dir": "stdout", "rocksdb.enable_blob_files": "yes", "rocksdb.min_blob_size": 4096},
            **{"rocksdb.compression": "no", "rocksdb.write_buffer_size": 16, "rocksdb.block_cache_size": 16},
        }
        lines |= self._extra
        conf = self.folder / "kvrocks.conf"
        conf.write_text("".join(f"{name} {value}\n" for name, value in lines.items()))
        return [str(KVROCKS), "-c", str(conf)]

    def _await(self) -> None:
        until = time.monotonic() + 30
        while True:
            if self._process.poll() is not None:
                raise RuntimeError(f"{self.kind} ended at its start: {self._log.read_text()[-2000:]}")
            try:
                self.call(b"PING")
                return
            except WireError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)

    def call(self, *words: Word) -> Reply:
        """Ask the store, on a connection of its own."""
        connection = Connection(("127.0.0.1", self.port), 5, 5)
        connection.deadline = time.monotonic() + 30
        try:
            return connection.call(*words)
        finally:
            connection.close()

    def listed(self, *words: Word) -> list[bytes]:
        """Ask the store for a list, or a set, in order."""
        reply = self.call(*words)
        assert isinstance(reply, list)
        return sorted(item for item in reply if isinstance(item, bytes))

    def stop(self) -> None:
        """Kill the process; that it lost nothing is no matter here."""
        self._process.kill()
        self._process.wait()


def start(kind: str, count: int, folder: Path) -> list[Store]:
    """Return `count` stores, started."""
    stores: list[Store] = []
    for number in range(count):
        own = folder / f"{kind}{number}"
        own.mkdir()
        stores.append(Store(kind, own))
    return stores


def stop(stores: Sequence[Store]) -> None:
    """Stop them all."""
    for store in stores:
        store.stop()
