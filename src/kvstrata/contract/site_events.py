"""Engines' KV events on a site: written down on the nodes themselves, and read from there.

With vllm-router an engine tells them at a TCP port, where it does. A worker of Dynamo has its engine tell them at a
socket in the unit's own /tmp, to which root of the node comes too. So nothing has to be opened for a test.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from kvstrata.bench.errors import BenchError
from kvstrata.cluster import EngineServer
from kvstrata.contract import site_units
from kvstrata.contract.residency import Batch, cleared, read_batches
from kvstrata.drain.replicas import Replica
from kvstrata.verify import wait
from kvstrata.verify.shell import Shell

# What roles/vllm gives a worker of Dynamo (kv-events-config).
_SOCKET = "kv-events"
_READY_S = 60.0
_SOCKET_S = 600.0
_READ_S = 120.0
_TRIES = 5
# vLLM's word for the engine's own cache; LMCache's events, of its DRAM, come on the same socket as CPU.
_OWN = ("GPU", None)
BOOT = "/proc/sys/kernel/random/boot_id"


def published(replica: Replica) -> bool:
    """Return whether an engine tells its events."""
    return replica.engine.server is EngineServer.DYNAMO or replica.engine.event_port is not None


@dataclass
class _Record:
    """One recorder: its file on the node, the copy here, and how much of it was copied and read."""

    shell: Shell
    remote: str
    copy: Path
    shift_s: float
    copied: int = 0
    read: int = 0


class SiteEvents:
    """All engines' events since `start`. A context manager, which ends the recorders."""

    def __init__(self, replicas: dict[str, tuple[Replica, Shell]], folder: Path) -> None:
        """Start nothing yet; copies go to `folder`."""
        self._replicas, self._folder = replicas, folder
        self._records: list[_Record] = []
        self._told: list[Batch] = []
        self._cleared: list[Batch] = []
        self._shifts: dict[str, float] = {}
        self._stack = ExitStack()

    def __enter__(self) -> SiteEvents:
        """Do nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the recorders."""
        self._stack.close()

    def start(self) -> None:
        """Have everything written down from now on.

        Raises:
            BenchError: an engine's socket is not there, or a recorder did not start.
            UnableError: a node cannot be reached.
        """
        for name, (replica, shell) in self._replicas.items():
            self._shifts.setdefault(replica.node.name, shift_s(shell))
            self._record(name)

    def emptied(self, name: str) -> None:
        """An engine was stopped, and holds nothing: it cannot say so itself."""
        self._cleared.append(cleared(time.monotonic(), name))

    def follow(self, name: str) -> None:
        """Listen to an engine that was started again, before it answers. A TCP port is followed by itself."""
        if self._replicas[name][0].engine.server is EngineServer.DYNAMO:
            self._record(name)

    def read(self) -> list[Batch]:
        """Return all events until now, by time on this machine's clock."""
        for record in self._records:
            found = record.shell.run(["tail", "-c", f"+{record.copied + 1}", record.remote], _READ_S)
            if found.exit_code == 0:
                content = found.stdout.encode()
                record.copied += len(content)
                with record.copy.open("ab") as copy:
                    copy.write(content)
            batches, record.read = read_batches(record.copy, record.read)
            self._told += [_own(batch, record.shift_s) for batch in batches]
        return sorted([*self._told, *self._cleared], key=lambda batch: batch.at)

    def _record(self, name: str) -> None:
        replica, shell = self._replicas[name]
        number = len(self._records)
        unit = f"events-{replica.node.name}-{number}"
        folder = f"kvstrata-routing-{unit}"
        remote = f"/run/{folder}/events.jsonl"
        argv = [site_units.PYTHON, "-c", recorder_source(), remote, f"{name}={_endpoint(replica, shell)}"]
        # The file is read after the end of an engine, and gone with the recorder.
        self._stack.enter_context(site_units.running(shell, unit, argv, {"RuntimeDirectory": folder}))
        if wait.until(lambda: shell.run(["test", "-s", remote]).exit_code == 0 or None, _READY_S) is None:
            raise BenchError(f"nobody writes down the KV events of {name}: journalctl -u {folder} on its node says why")
        copy = self._folder / f"{unit}.jsonl"
        copy.touch()
        self._records.append(_Record(shell, remote, copy, self._shifts[replica.node.name]))


def recorder_source() -> str:
    """Return the recorder as a program for nodes: what it imports is theirs."""
    return (resources.files("kvstrata.contract") / "recorder.py").read_text()


def _endpoint(replica: Replica, shell: Shell) -> str:
    engine = replica.engine
    if engine.server is not EngineServer.DYNAMO:
        return f"tcp://{engine.host}:{engine.event_port}"
    pattern = f"/tmp/systemd-private-*-{engine.unit}-*/tmp/{_SOCKET}"  # noqa: S108 - the unit's own, by its role

    def there() -> str | None:
        # A folder of a process before may still be there without a socket in it; the newest counts.
        script = f"for each in $(ls -td {pattern} 2>/dev/null); do test -S $each && echo $each && break; done"
        return shell.run(["sh", "-c", script]).stdout.strip() or None

    found = wait.until(there, _SOCKET_S)
    if found is None:
        raise BenchError(f"{replica.name} has no socket for its KV events ({pattern})")
    return f"ipc://{found}"


def _own(batch: Batch, shift: float) -> Batch:
    events = [event for event in batch.events if event["type"] == "AllBlocksCleared" or event.get("medium") in _OWN]
    return replace(batch, at=batch.at - shift, events=events)


def shift_s(shell: Shell, clock: Callable[[], float] = time.monotonic) -> float:
    """Return by how much a node's monotonic clock is ahead of this machine's; 0 where they are one machine.

    The shortest of several questions counts; half of its duration is what it may be wrong by.
    """
    if shell.run(["cat", BOOT]).text() == Path(BOOT).read_text().strip():
        return 0.0
    asked = []
    for _ in range(_TRIES):
        before = clock()
        told = float(shell.run([site_units.PYTHON, "-c", "import time; print(time.monotonic())"]).text())
        after = clock()
        # Python takes its time to start and little to end: the answer is younger than the middle.
        asked.append((after - before, told - after))
    return min(asked)[1]
