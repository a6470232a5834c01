"""Faults in which a process is killed with -9: the adapter's own while it stores, and the store."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from kvstrata.bench.faults.probe import MIB
from kvstrata.bench.faults.rig import Rig
from kvstrata.bench.faults.rows import Seen
from kvstrata.bench.faults.servers import StoreServer
from kvstrata.bench.faults.tamper import chunk_keys, indexed, used_bytes
from kvstrata.l2.keeper import fields_of
from kvstrata.l2.names import LEASE, MANIFEST_FIELD

_ROUNDS = 6
_BATCH = 8
_LONGEST_S = 0.25
_KILLED_CHUNKS = 24
_AWAIT_S = 20.0


def client_killed(rig: Rig) -> None:
    """Kill the process that stores, at random moments; then another process looks at what is there."""
    server = rig.server().start()
    moments = rig.random
    for number in range(_ROUNDS):
        names = rig.names(_BATCH, f"round{number}")
        started = rig.folder / f"started{number}"
        child = rig.child(lambda: _store(rig, server.port, names, started.touch), f"writer{number}")  # noqa: B023
        _await(started.exists, "the writer did not start")
        # A moment of the seed's choice, on purpose: nothing tells it from the others.
        time.sleep(moments.uniform(0.0, _LONGEST_S))
        child.kill()
        child.wait(5.0)
    if rig.ours:
        keys = chunk_keys(server)
        partial = [key for key in keys if server.ask("HEXISTS", key, MANIFEST_FIELD) == 0]
        rig.seen.figures["chunks left partial"] = len(partial)
        _uncounted(rig, server)
    came, seen = rig.in_child(lambda: _look(rig, server.port), "reader")
    _merge(rig.seen, seen)
    rig.seen.figures["chunks that came whole"] = sum(came)
    rig.seen.figures["chunks that are a miss"] = len(came) - sum(came)
    if rig.ours:
        # The lease of the killed one ends by itself after 10 s; here it is taken away to save that time.
        server.ask("DEL", LEASE)
        rig.in_child(lambda: _evict_all(rig, server), "evictor", timeout_s=2 * _AWAIT_S)
        rig.seen.require(not chunk_keys(server), "something was left that eviction does not find")


def store_killed(rig: Rig) -> None:
    """Kill the store with -9: after a checkpoint (COMPACT), and with as much again stored since then."""
    server = rig.server().start()
    before, since = rig.names(_KILLED_CHUNKS, "before"), rig.names(_KILLED_CHUNKS, "since")
    _merge(rig.seen, rig.in_child(lambda: _store_and_see(rig, server.port, before), "writer0"))
    if rig.engine == "kvrocks":
        server.compact()
    _merge(rig.seen, rig.in_child(lambda: _store_and_see(rig, server.port, since), "writer1"))
    if rig.engine == "kvrocks":
        # What it flushes by itself meanwhile: pieces, and entries of the index, but not that the index has grown.
        _await(lambda: _flushed(server), "Kvrocks did not end its flushes")
    server.kill()
    server.start()
    came, seen = rig.in_child(lambda: _survivors(rig, server, before + since), "reader")
    _merge(rig.seen, seen)
    kept, late = sum(came[:_KILLED_CHUNKS]), sum(came[_KILLED_CHUNKS:])
    rig.seen.figures[f"survived the kill, of {_KILLED_CHUNKS} before the checkpoint"] = kept
    rig.seen.figures[f"survived the kill, of {_KILLED_CHUNKS} since then"] = late
    rig.seen.require(kept == _KILLED_CHUNKS, f"{_KILLED_CHUNKS - kept} chunks were lost though flushed")
    # What was lost is stored anew: it must count as if it never had been there.
    _merge(rig.seen, rig.in_child(lambda: _store_and_see(rig, server.port, since), "writer2"))
    came, seen = rig.in_child(lambda: _survivors(rig, server, before + since), "reader2")
    _merge(rig.seen, seen)
    rig.seen.require(all(came), f"{len(came) - sum(came)} chunks could not be stored anew")


def _store(rig: Rig, port: int, names: list[str], started: Callable[[], object]) -> None:
    probe = rig.open(port)
    started()
    probe.store(names)


def _store_and_see(rig: Rig, port: int, names: list[str]) -> Seen:
    probe = rig.open(port)
    rig.seen.require(probe.store(names), "not all was stored before the fault")
    probe.close()
    return rig.seen


def _look(rig: Rig, port: int) -> tuple[list[bool], Seen]:
    probe = rig.open(port)
    names = [name for number in range(_ROUNDS) for name in rig.names(_BATCH, f"round{number}")]
    came = [hit for start in range(0, len(names), _BATCH) for hit in probe.fetch(names[start : start + _BATCH])]
    probe.await_back()
    probe.close()
    return came, rig.seen


def _survivors(rig: Rig, server: StoreServer, names: list[str]) -> tuple[list[bool], Seen]:
    probe = rig.open(server.port)
    probe.await_back()
    came = [hit for start in range(0, len(names), _BATCH) for hit in probe.fetch(names[start : start + _BATCH])]
    if rig.ours:
        _await(lambda: _reconciled(probe.adapter), "the index was not walked through")
        _uncounted(rig, server)
    probe.close()
    return came, rig.seen


def _uncounted(rig: Rig, server: StoreServer) -> None:
    """Require that every chunk that takes space is in the index, and that the index counts what it lists."""
    lists = indexed(server)
    known = {cid.hex().encode() for cids in lists.values() for cid in cids}
    lost = [key for key in chunk_keys(server) if key.rpartition(b":")[2] not in known]
    rig.seen.require(not lost, f"{len(lost)} chunks take space and are in no index")
    listed = sum(len(cids) * name.stored_bytes for name, cids in lists.items())
    used = used_bytes(server)
    rig.seen.figures["MiB in use, as counted"] = round(used / MIB, 1)
    rig.seen.require(used == listed, f"the index counts {used} bytes and lists {listed}")


def _evict_all(rig: Rig, server: StoreServer) -> None:
    probe = rig.open(server.port, capacity_bytes=1)
    try:
        _await(lambda: not chunk_keys(server) and not used_bytes(server), "not all could be evicted")
    except RuntimeError as error:
        raise RuntimeError(f"{error}: {probe.adapter.report_status()['endpoints']}") from error
    probe.close()


def _reconciled(adapter: Any) -> bool:
    return all(keeper.reconciler is not None and keeper.reconciler.done for keeper in adapter._tier.keepers)


def _flushed(server: StoreServer) -> bool:
    info = fields_of(bytes(server.ask("INFO", "rocksdb")))  # type: ignore[arg-type]
    waiting = [
        value for name, value in info.items() if name.startswith(("memtable_flush_pending", "num_running_flush"))
    ]
    return all(value == "0" for value in waiting)


def _await(holds: Callable[[], bool], otherwise: str) -> None:
    until = time.monotonic() + _AWAIT_S
    while not holds():
        if time.monotonic() > until:
            raise RuntimeError(f"{otherwise} (awaited {_AWAIT_S:g} s)")
        time.sleep(0.01)


def _merge(seen: Seen, child: Seen) -> None:
    """Take over what a child saw, which began with what was seen here."""
    vars(seen).update(vars(child))
