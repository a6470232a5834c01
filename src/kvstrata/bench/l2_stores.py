"""The stores below `bench l2`: own Kvrocks (or redis-server) processes with the role's cache profile, on loopback."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

from kvstrata.bench import procfs
from kvstrata.bench.errors import BenchError
from kvstrata.bench.procfs import Usage
from kvstrata.bench.server import Server, free_port
from kvstrata.kvrocks.config import directives
from kvstrata.kvrocks.profiles import DEFAULT

KVROCKS, REDIS = "kvrocks", "redis"
# kvrocks_workers and kvrocks_malloc_conf of roles/kvrocks.
WORKERS = 8
MALLOC_CONF = "oversize_threshold:0,dirty_decay_ms:60000,muzzy_decay_ms:60000,background_thread:true"
_REST_S = 30.0
_IDLE_S = 0.1
_POLL_S = 0.02


@dataclass(frozen=True)
class Reading:
    """What all stores together used until now."""

    usage: Usage
    asked_bytes: int
    """What they asked of the kernel by read(2) and its kin (rchar), from the page cache or the drive."""

    def __sub__(self, before: Reading) -> Reading:
        """Return what was used since `before`."""
        return Reading(self.usage - before.usage, self.asked_bytes - before.asked_bytes)


class Stores:
    """One or more stores in a folder of their own; `kill` must be called at the end, whatever happened."""

    def __init__(self, kind: str, binary: Path, folder: Path, count: int, unix: bool) -> None:
        """Prepare `count` of them in `folder`; with `unix`, clients are told of a unix socket too."""
        self.persistent = kind == KVROCKS
        self._binary = binary
        self._folder = folder
        self._servers: list[Server] = []
        self._profile = directives(DEFAULT, WORKERS, {}) if self.persistent else {}
        # A path of a unix socket may have 107 bytes, which a folder for benchmarks easily exceeds.
        self._sockets = Path(tempfile.mkdtemp(prefix="kvs-"))
        self._unix = unix
        # Placement goes by host:port, so a store that comes back must have the same.
        self._ports = [free_port() for _ in range(count)]

    def endpoints(self) -> list[dict[str, Any]]:
        """Return where the stores listen, as clients take it."""
        return [
            {"host": "127.0.0.1", "port": port, "unix": str(self._socket(port)) if self._unix else ""}
            for port in self._ports
        ]

    def start(self) -> None:
        """Start all of them and wait until they answer.

        Raises:
            BenchError: one did not start, or did not take its configuration.
        """
        env = {name: value for name, value in os.environ.items() if name != "MALLOC_CONF"}
        if self.persistent:
            env["MALLOC_CONF"] = MALLOC_CONF
        for port in self._ports:
            data = self._folder / str(port)
            data.mkdir(exist_ok=True)
            config = self._folder / f"{port}.conf"
            config.write_text("".join(f"{name} {value}\n" for name, value in self._config(port, data).items()))
            command = [str(self._binary), *(["-c"] if self.persistent else []), str(config)]
            self._servers.append(Server(command, port, env, self._folder / f"{port}.log"))
        for server in self._servers:
            server.ready()
            effective = server.config()
            wrong = {name: value for name, value in self._profile.items() if effective.get(name) != value}
            if wrong:
                raise BenchError(f"the store did not take its configuration: {wrong}")

    def reading(self) -> Reading:
        """Return what was used until now by the processes that run."""
        usage = reduce(add, (server.usage() for server in self._servers), Usage())
        return Reading(usage, sum(_asked_bytes(server.pid) for server in self._servers))

    def rest(self) -> Usage:
        """Let flushes and compactions end, stop all, write everything back; return what they used in their lives."""
        idle_since = began = time.monotonic()
        while (now := time.monotonic()) < began + _REST_S and now < idle_since + _IDLE_S:
            if any(server.busy() for server in self._servers):
                idle_since = time.monotonic()
            time.sleep(_POLL_S)
        used = Usage()
        while self._servers:
            used += self._servers.pop().stop()
        self.drop_cache()
        return used

    def drop_cache(self) -> None:
        """Take all files out of the page cache, written back."""
        procfs.drop_cache(self._folder)

    def kill(self) -> None:
        """End what runs; the folder stays."""
        while self._servers:
            self._servers.pop().kill()
        shutil.rmtree(self._sockets, ignore_errors=True)

    def _socket(self, port: int) -> Path:
        return self._sockets / str(port)

    def _config(self, port: int, data: Path) -> dict[str, str]:
        own = {"bind": "127.0.0.1", "port": str(port), "dir": str(data), "daemonize": "no", "supervised": "no"}
        own |= {"unixsocket": str(self._socket(port))}
        if not self.persistent:
            return own | {"save": '""', "appendonly": "no"}
        return own | {"log-dir": "stdout"} | self._profile


def _asked_bytes(pid: int) -> int:
    lines = (procfs.PROC / str(pid) / "io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])
