"""The instances of one setup, as one: started, brought to rest, restarted, counted together, ended."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path

from kvstrata.bench import procfs
from kvstrata.bench.counters import Counters, data_files, flushed_at_shutdown, flushed_at_start
from kvstrata.bench.errors import BenchError
from kvstrata.bench.procfs import Disk, Usage
from kvstrata.bench.profile import environment, render
from kvstrata.bench.server import Server, free_port
from kvstrata.bench.study import Setup

# Compactions that still run after it are cancelled by the stop that follows.
REST_S = 30.0
# One job may end just before the next begins.
_IDLE_S = 0.1
_POLL_S = 0.02


@dataclass(frozen=True)
class Reading:
    """The counters of all instances since they were first started, restarts included, and of the device."""

    usage: Usage
    counters: Counters | None
    disk: Disk | None
    foreign_cpu_s: float
    at: float

    def foreign_cores_since(self, before: Reading) -> float:
        """Return how many cores others kept busy since `before`, the hypervisor's other guests included."""
        return max(0.0, (self.foreign_cpu_s - before.foreign_cpu_s) / (self.at - before.at))


class Fleet:
    """All instances of a setup; `kill` must be called at the end, whatever happened."""

    def __init__(self, setup: Setup, binary: Path, folder: Path, device: str) -> None:
        """Prepare folders and configuration below `folder`; nothing is started yet."""
        self._setup = setup
        self._binary = binary
        self._folder = folder
        self._device = device
        self._servers: list[Server] = []
        self._past = Usage()
        self._past_counters = Counters()
        self.persistent = setup.server != "redis"
        self.ports: list[int] = []

    def start(self) -> None:
        """Start every instance and wait for it; after `to_rest`, start them again on their data.

        Raises:
            BenchError: one did not start, or did not take its configuration.
        """
        files = data_files(self._folder)
        self.ports = []
        for number in range(self._setup.instances):
            data = self._folder / f"instance{number}"
            data.mkdir(exist_ok=True)
            port = free_port()
            config = self._folder / f"instance{number}.conf"
            config.write_text(render(self._setup, port, data))
            command = [str(self._binary), *(["-c", str(config)] if self.persistent else [str(config)])]
            log = self._folder / f"instance{number}.log"
            self._servers.append(Server(command, port, environment(self._setup), log))
            self.ports.append(port)
        for server in self._servers:
            server.ready()
        if self.persistent:
            self._past_counters += Counters(written=flushed_at_start(files, data_files(self._folder)))
            for server in self._servers:
                _check_directives(self._setup, server.config())

    def reading(self) -> Reading:
        """Return what was used and counted until now."""
        live = reduce(add, (server.usage() for server in self._servers), Usage())
        counters = None
        if self.persistent:
            counters = reduce(add, (server.counters() for server in self._servers), self._past_counters)
        foreign = procfs.foreign_cpu_s(live)
        return Reading(self._past + live, counters, procfs.disk(self._device), foreign, time.monotonic())

    def to_rest(self) -> None:
        """Let flushes and compactions end, stop the servers (which flushes the rest), and sync their files."""
        idle_since = began = time.monotonic()
        while (now := time.monotonic()) < began + REST_S and now < idle_since + _IDLE_S:
            if any(server.busy() for server in self._servers):
                idle_since = time.monotonic()
            time.sleep(_POLL_S)
        for server in self._servers:
            self._past_counters += server.counters()
        files = data_files(self._folder)
        while self._servers:
            self._past += self._servers.pop().stop()
        self._past_counters += Counters(written=flushed_at_shutdown(files, data_files(self._folder)))
        self.drop_cache()

    def drop_cache(self) -> None:
        """Take all files out of the page cache, written back."""
        procfs.drop_cache(self._folder)

    def kill(self) -> None:
        """End what runs, for the folder is thrown away."""
        while self._servers:
            self._servers.pop().kill()


def _check_directives(setup: Setup, effective: dict[str, str]) -> None:
    """Compare with what was asked for: Kvrocks ignores what it does not know with no more than a line in its log."""
    wrong = {
        name: effective.get(name, "unknown to this server")
        for name, value in setup.directives.items()
        if effective.get(name) != value
    }
    if wrong:
        told = ", ".join(f"{name} is {seen}, not {setup.directives[name]}" for name, seen in wrong.items())
        raise BenchError(f"{setup.name}: the server did not take its configuration: {told}")
