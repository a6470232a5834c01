"""Rounds over all cases: the raw drive, fresh stores, one client: store, rest, load cold, load warm, look up."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kvstrata.bench import host, procfs, rawdisk
from kvstrata.bench.ending import end_if_told, own_folder
from kvstrata.bench.errors import BenchError
from kvstrata.bench.l2_process import Process
from kvstrata.bench.l2_results import (
    COLD,
    LOOKUP,
    SCHEMA,
    STORE,
    WARM,
    Case,
    Failure,
    Journey,
    Run,
    Sample,
    journey_stages,
)
from kvstrata.bench.l2_stores import Reading, Stores
from kvstrata.bench.quiet import QuietWait
from kvstrata.bench.rawdisk import RawSample
from kvstrata.bench.server import version
from kvstrata.bench.statistics import mb_per_s

Progress = Callable[[str], None]
_RAW_S = 6.0


@dataclass(frozen=True)
class Plan:
    """What to run, where, and how much of it."""

    cases: Sequence[Case]
    store: str
    binary: Path
    folder: Path
    python: Path
    """Interpreter of the clients: the nodes' environment, or for the Tier alone any Python from 3.10 on."""
    rounds: int = 3
    chunks: int = 32
    chunk_bytes: int = 32 << 20
    batch: int = 16
    passes: int = 3
    journeys: int = 8
    seed: int = 1
    minutes: float = 30.0
    wait_minutes: float = 0.0
    """Most minutes to wait, in all, for others to leave the machine alone."""
    patience_s: float = 60.0
    allow_memory: bool = False

    @property
    def payload(self) -> int:
        """Bytes that each case stores."""
        return self.chunks * self.chunk_bytes


def run(plan: Plan, progress: Progress) -> Run:
    """Measure; a case that fails is recorded and does not end the run.

    Raises:
        BenchError: nothing can be measured here.
    """
    mount = host.check_folder(plan.folder, plan.payload, plan.allow_memory)
    described = host.describe(mount)
    result = Run(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=plan.seed,
        rounds=plan.rounds,
        chunks=plan.chunks,
        chunk_bytes=plan.chunk_bytes,
        batch=plan.batch,
        passes=plan.passes,
        host=described,
        versions={plan.store: version(plan.binary), "schema": SCHEMA},
        store=plan.store,
        cases=plan.cases,
        notes=list(host.warnings(described)),
    )
    quiet = QuietWait(described["cores"], plan.wait_minutes * 60)
    began = time.monotonic()
    with own_folder(plan.folder, "kvstrata-bench-l2-") as folder:
        for turn in range(1, plan.rounds + 1):
            for case in random.Random(plan.seed + turn).sample(list(plan.cases), len(plan.cases)):  # noqa: S311
                quiet()
                end_if_told()
                if time.monotonic() - began - quiet.waited_s > plan.minutes * 60:
                    result.notes.append(f"CUT SHORT after {plan.minutes:g} minutes in round {turn}")
                    return _ended(result, began)
                progress(f"round {turn}: {case.name}: {_one(plan, case, turn, folder, result)}")
    result.complete = not result.failures
    return _ended(result, began)


def _ended(result: Run, began: float) -> Run:
    if note := host.foreign_note(result.foreign_cores, result.host["cores"]):
        result.notes.append(note)
    result.duration_s = time.monotonic() - began
    return result


def _one(plan: Plan, case: Case, turn: int, folder: Path, result: Run) -> str:
    place = folder / "case"
    place.mkdir()
    try:
        raw = rawdisk.measure(place, plan.payload, _RAW_S, turn)
        result.raw.append({"case": case.name, "write_mb_s": raw.write_mb_s, "read_mb_s": raw.read_mb_s})
        result.versions = {**result.versions, "raw": raw.tool}
        stores = Stores(plan.store, plan.binary, place, case.instances, case.unix)
        try:
            samples, journey, foreign = _CaseRound(plan, case, turn, stores, place, raw).measure()
        finally:
            stores.kill()
    except (BenchError, OSError) as error:
        result.failures.append(Failure(case.name, turn, str(error)))
        return f"FAILED: {error}"
    finally:
        shutil.rmtree(place)
    result.samples += samples
    result.journeys.append(journey)
    result.foreign_cores.append(foreign)
    rates = ", ".join(f"{s.workload} {s.mb_s:.0f}" for s in samples if s.mb_s is not None)
    return f"{rates} MB/s (raw write {raw.write_mb_s:.0f}, read {raw.read_mb_s:.0f})"


class _CaseRound:
    def __init__(self, plan: Plan, case: Case, turn: int, stores: Stores, place: Path, raw: RawSample) -> None:
        self._plan = plan
        self._case = case
        self._turn = turn
        self._stores = stores
        self._raw = raw
        self._log = place / "client.log"
        self._batches = -(-plan.chunks // plan.batch)

    def measure(self) -> tuple[list[Sample], Journey, float]:
        """Return the samples, the journey of single chunks, and how many cores others kept busy."""
        self._stores.start()
        began, foreign_before = time.monotonic(), procfs.foreign_cpu_s(self._stores.reading().usage)
        plan, case = self._plan, self._case
        samples: list[Sample] = []
        with Process(
            plan.python,
            self._log,
            case.client,
            self._stores.endpoints(),
            case.fields,
            plan.chunk_bytes,
            plan.batch,
            plan.seed + self._turn,
            plan.patience_s,
        ) as client:
            client.order("open")
            samples.append(self._store(client))
            client.order("open")
            if self._stores.persistent:
                samples.append(self._load(client, COLD, 1))
            else:
                # A first pass, for the page tables and buffers that the cold one warms elsewhere.
                self._load(client, WARM, 1)
            samples.append(self._load(client, WARM, plan.passes))
            journey = self._journey(client)
            client.order("close")
            if self._stores.persistent:
                # Last, for some clients read all values for it; and on stores that have nothing in their memory.
                self._stores.rest()
                self._stores.start()
                self._stores.drop_cache()
                client.order("open")
                samples.append(self._lookup(client))
                client.order("close")
        # The client's process was waited for by now, so its CPU time counts as ours and not as others'.
        foreign = procfs.foreign_cpu_s(self._stores.reading().usage) - foreign_before
        return samples, journey, max(0.0, foreign / (time.monotonic() - began))

    def _store(self, client: Process) -> Sample:
        before = self._stores.reading()
        did = client.order("store", self._batches, count=self._plan.chunks)
        stored = self._stores.reading()
        rest_began = time.monotonic()
        client.order("close")
        extra: dict[str, Any] = {}
        if self._stores.persistent:
            life = self._stores.rest()
            rest_s = did["seconds"] + time.monotonic() - rest_began
            extra = {
                "rest_mb_s": mb_per_s(self._plan.payload, rest_s),
                "write_amplification": life.write_bytes / self._plan.payload,
            }
            # Until at rest: what a flush costs is part of a store's price.
            stored = Reading(life, stored.asked_bytes)
            self._stores.start()
            self._stores.drop_cache()
        return self._sample(STORE, did, stored - before, self._raw.write_mb_s, **extra)

    def _lookup(self, client: Process) -> Sample:
        before = self._stores.reading()
        client.order("lookup", first=0, count=1)
        first = self._stores.reading() - before
        before = self._stores.reading()
        did = client.order("lookup", self._batches, first=1, count=self._plan.chunks - 1)
        return self._sample(
            LOOKUP,
            did,
            self._stores.reading() - before,
            None,
            chunks=self._plan.chunks - 1,
            one_lookup_drive_bytes=first.usage.read_bytes,
            one_lookup_asked_bytes=first.asked_bytes,
        )

    def _load(self, client: Process, workload: str, passes: int) -> Sample:
        before = self._stores.reading()
        # A cold lookup reads all values with some clients, and then the load would not be cold.
        find = workload != COLD
        did = client.order("load", self._batches * passes, count=self._plan.chunks, passes=passes, find=find)
        raw = self._raw.read_mb_s if workload == COLD else None
        return self._sample(workload, did, self._stores.reading() - before, raw, chunks=self._plan.chunks * passes)

    def _journey(self, client: Process) -> Journey:
        count = min(self._plan.journeys, self._plan.chunks)
        did = client.order("journey", count, count=count)
        load_ms = did["load"]["seconds"] / count * 1000
        connections = self._case.connections
        seconds = {stage: total for stage, (_, total) in did["stages"].items()}
        return Journey(
            case=self._case.name,
            round=self._turn,
            chunks=count,
            lookup_ms=did["lookup"]["seconds"] / count * 1000,
            load_ms=load_ms,
            stages_ms=journey_stages(load_ms, seconds, count, connections),
        )

    def _sample(
        self,
        workload: str,
        did: Mapping[str, float],
        used: Reading,
        raw: float | None,
        chunks: int | None = None,
        **extra: Any,
    ) -> Sample:
        chunks = chunks or self._plan.chunks
        size = chunks * self._plan.chunk_bytes
        return Sample(
            case=self._case.name,
            round=self._turn,
            workload=workload,
            chunks=chunks,
            bytes=size,
            seconds=did["seconds"],
            mb_s=None if workload == LOOKUP else mb_per_s(size, did["seconds"]),
            client_cpu_s=did["cpu_s"],
            server_cpu_s=used.usage.cpu_s,
            raw_mb_s=raw,
            drive_read_bytes=used.usage.read_bytes,
            asked_bytes=used.asked_bytes,
            **extra,
        )
