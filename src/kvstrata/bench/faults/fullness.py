"""Faults of a store that has no more room."""

from __future__ import annotations

import time

from kvstrata.bench.faults import isolate
from kvstrata.bench.faults.probe import CHUNK_BYTES, Probe
from kvstrata.bench.faults.rig import Rig
from kvstrata.bench.faults.servers import StoreServer
from kvstrata.bench.faults.tamper import used_bytes

MIB = 1 << 20
_CHUNKS = 6
_SMALL_BYTES = 96 * MIB
_ROOMY_BYTES = 1024 * MIB
# Kvrocks' limit is in whole GiB.
_LIMIT_GIB = 1
_REPAIR_S = 30.0
_EVICTED_WITHIN_S = 15.0


def full(rig: Rig) -> None:
    """Fill the store to its own limit with other data: it refuses every write, and still answers reads."""
    server = rig.server({"maxmemory-policy": "noeviction"} if rig.engine == "redis" else None).start()
    names = rig.names(_CHUNKS)
    probe = rig.open(server.port)
    rig.seen.require(probe.store(names), "not all was stored before the fault")
    _fill(server)
    for number in range(3):
        more = rig.names(2, f"refused{number}")
        stored = rig.endures(lambda: probe.store(more))  # noqa: B023 - called at once
        if stored:
            there = rig.endures(lambda: probe.fetch(more))  # noqa: B023
            rig.seen.require(there is not None and all(there), "reported as stored by a full store, and not there")
        came = rig.endures(lambda: probe.fetch(names))
        served, evicted = sum(came or []), _evicted(probe) if rig.ours else 0
        rig.seen.require(served + evicted >= _CHUNKS, f"{served} of {_CHUNKS} chunks were served meanwhile")
        if stored is None or came is None:
            break
        rig.seen.figures["chunks served meanwhile"] = served
        if evicted:
            rig.seen.figures["chunks evicted, for the drive had no room"] = evicted
    if rig.ours:
        # Closed first: it may evict here, and with its capacity it sees no reason to.
        probe.close()
        probe = _evicts(rig, server)
    _relieve(server)
    probe.await_back()


def _evicted(probe: Probe) -> int:
    """Return what the adapter evicted by itself: near max-db-size it makes room, whoever took it."""
    endpoints = probe.adapter.report_status()["endpoints"]
    return sum(endpoint["evicted_chunks"] for endpoint in endpoints.values())


def _evicts(rig: Rig, server: StoreServer) -> Probe:
    """Require that an adapter brings the full store under a smaller capacity, though writes are refused."""
    capacity = _CHUNKS * CHUNK_BYTES // 2
    probe = rig.open(server.port, capacity_bytes=capacity, namespace="kvs-other")
    began = time.monotonic()
    while used_bytes(server) > capacity:
        if time.monotonic() - began > _EVICTED_WITHIN_S:
            rig.seen.require(False, f"a full store was not brought under its capacity in {_EVICTED_WITHIN_S:g} s")
            return probe
        time.sleep(0.02)
    rig.seen.figures["s to evict on the full store"] = round(time.monotonic() - began, 2)
    return probe


def full_filesystem(rig: Rig) -> None:
    """Let the store's filesystem have no more room (96 MiB, ENOSPC), then give it room."""
    folder = rig.folder / "small"
    isolate.small_filesystem(folder, _SMALL_BYTES)
    small = {"rocksdb.write_buffer_size": "8", "rocksdb.max_write_buffer_number": "2"}
    server = rig.server(small if rig.engine == "kvrocks" else None, folder=folder).start()
    probe = rig.open(server.port)
    names = rig.names(_CHUNKS)
    rig.seen.require(probe.store(names), "not all was stored before the fault")
    refused = 0
    for number in range(2 * _SMALL_BYTES // CHUNK_BYTES):
        name = rig.names(1, f"fill{number}")
        stored = rig.endures(lambda: probe.store(name))  # noqa: B023 - called at once
        if stored is None:
            break
        refused += not stored
        if refused >= 3:
            break
    rig.seen.require(refused > 0 or bool(rig.seen.hung), "the filesystem never was full")
    came = rig.endures(lambda: probe.fetch(names))
    rig.seen.require(came is not None and all(came), f"{sum(came or [])} of {_CHUNKS} chunks were served meanwhile")
    isolate.resize_filesystem(folder, _ROOMY_BYTES)
    repaired = server.await_writes(_REPAIR_S)
    if repaired is None:
        rig.seen.notes.append(f"the store took no write within {_REPAIR_S:g} s of having room, and was restarted")
        server.kill()
        server.start()
    else:
        rig.seen.figures["s until the store itself took writes"] = round(repaired, 2)
    probe.await_back()
    if rig.seen.back_s is not None:
        came = rig.endures(lambda: probe.fetch(names))
        rig.seen.figures["old chunks served again"] = sum(came or [])
        rig.seen.require(came is not None and all(came), f"{_CHUNKS - sum(came or [])} chunks from before were lost")


def _fill(server: StoreServer) -> None:
    if server.engine == "redis":
        # One byte: whatever would take more is refused from now on.
        server.ask("CONFIG", "SET", "maxmemory", 1)
        return
    server.ask("CONFIG", "SET", "max-db-size", _LIMIT_GIB)
    server.fill(int(_LIMIT_GIB * 1024 * 1.1))
    # What was written counts once it is in files.
    server.compact()
    until = time.monotonic() + _REPAIR_S
    while server.await_writes(0) is not None or _takes(server):
        if time.monotonic() > until:
            raise RuntimeError("Kvrocks took writes beyond max-db-size")
        server.fill(16)


def _takes(server: StoreServer) -> bool:
    return server.await_writes(0.01) is not None


def _relieve(server: StoreServer) -> None:
    if server.engine == "redis":
        server.ask("CONFIG", "SET", "maxmemory", 0)
    else:
        server.ask("CONFIG", "SET", "max-db-size", 0)
    if server.await_writes(_REPAIR_S) is None:
        raise RuntimeError(f"{server.engine} took no write {_REPAIR_S:g} s after its limit was lifted")
