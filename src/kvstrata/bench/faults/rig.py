"""What a case works with: servers, adapters over them, and what was seen."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kvstrata.bench.faults.isolate import Child, Outcome
from kvstrata.bench.faults.probe import HungError, Probe
from kvstrata.bench.faults.proxy import Proxy
from kvstrata.bench.faults.rows import Seen
from kvstrata.bench.faults.servers import PASSWORD, StoreServer
from kvstrata.bench.faults.tamper import Tamper
from kvstrata.bench.l2_driver import Store

QUICK: dict[str, Any] = {
    "connect_timeout_s": 0.5,
    "stall_s": 1.0,
    "lookup_deadline_s": 1.0,
    "load_deadline_s": 3.0,
    "store_deadline_s": 5.0,
    "tick_s": 0.25,
}
"""Deadlines of kvstrata's that keep a matrix short; cases named `..._default` keep the defaults."""
PATIENCE_S = {"kvstrata": 60.0, "resp": 20.0, "valkey": 30.0}
"""Beyond it an operation counts as hung. valkey's own timeout is 5 s for each request of a batch."""


@dataclass
class Rig:
    """Everything of one case; `close` ends what it started."""

    adapter: str
    engine: str
    binary: Path
    folder: Path
    seed: int
    quick: bool = True
    """Short deadlines in place of the defaults."""
    seen: Seen = field(default_factory=Seen)
    servers: list[StoreServer] = field(default_factory=list)
    _closers: list[Callable[[], object]] = field(default_factory=list)

    @property
    def ours(self) -> bool:
        """Whether kvstrata.l2 is under test."""
        return self.adapter == "kvstrata"

    @property
    def random(self) -> random.Random:
        """Return a generator with the case's seed."""
        return random.Random(self.seed)  # noqa: S311 - chooses moments, guards nothing

    def server(self, directives: Mapping[str, str] | None = None, folder: Path | None = None) -> StoreServer:
        """Return one more server, not started."""
        place = folder or self.folder / f"store{len(self.servers)}"
        place.mkdir(parents=True, exist_ok=True)
        server = StoreServer(self.engine, self.binary, place, directives)
        self.servers.append(server)
        return server

    def proxy(self, server: StoreServer) -> Proxy:
        """Return a proxy in front of a server."""
        proxy = Proxy(server.port)
        self._closers.append(proxy.close)
        return proxy

    def open(self, *ports: int, password: str = PASSWORD, capacity_bytes: int = 1 << 40, **fields: Any) -> Probe:
        """Return an adapter over the stores on these ports of loopback."""
        stores = [Store("127.0.0.1", port, password, capacity_bytes) for port in ports]
        known = {**(QUICK if self.quick else {}), "local_node": "here", **fields}
        probe = Probe(self.adapter, stores, self.seen, known, PATIENCE_S[self.adapter])
        self._closers.append(probe.close)
        return probe

    def tamper(self, server: StoreServer) -> Tamper:
        """Return what changes chunks on a server."""
        return Tamper(server, self.adapter)

    def child(self, task: Callable[[], Any], name: str) -> Child:
        """Run a task in a process of its own; not after an adapter was opened here."""
        child = Child(task, self.folder / f"{name}.log")
        self._closers.append(child.kill)
        return child

    def in_child(self, task: Callable[[], Any], name: str, timeout_s: float = 60.0) -> Any:
        """Return what a task in a process of its own returned; raises RuntimeError when it returned nothing."""
        outcome: Outcome = self.child(task, name).wait(timeout_s)
        if outcome.failure:
            raise RuntimeError(f"{name}: {outcome.failure}")
        return outcome.value

    def endures(self, operation: Callable[[], Any]) -> Any:
        """Do an operation under the fault; None where it never ended, so that the case can go on to the repair."""
        try:
            return operation()
        except HungError:
            return None

    def names(self, count: int, group: str = "chunk") -> list[str]:
        """Return names of chunks."""
        return [f"{group}-{self.seed}-{number}" for number in range(count)]

    def close(self) -> None:
        """End everything: adapters last opened first, then the servers, held ones too."""
        for closer in reversed(self._closers):
            with contextlib.suppress(Exception):
                closer()
        for server in self.servers:
            with contextlib.suppress(Exception):
                server.kill()
