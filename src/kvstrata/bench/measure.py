"""One setup, one round: its servers from an empty folder through all workloads to their end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kvstrata.bench import load
from kvstrata.bench.fleet import Fleet, Reading
from kvstrata.bench.load import Outcome
from kvstrata.bench.resp_load import ConnectionJob
from kvstrata.bench.results import COLD, MIXED, SET, WARM, Sample
from kvstrata.bench.statistics import amplification, mb_per_s, per_gib, percentile
from kvstrata.bench.study import Setup

READ_SHARE = 0.7


@dataclass(frozen=True)
class Budget:
    """How much each workload does: bytes of values, and at most so many seconds."""

    value_bytes: int
    seconds: float


def measure(
    setup: Setup, binary: Path, folder: Path, device: str, budget: Budget, repeat: int, seed: int
) -> list[Sample]:
    """Measure every workload of a setup in `folder`, which must be empty.

    Raises:
        BenchError: a server or a client failed; no server is left running.
    """
    fleet = Fleet(setup, binary, folder, device)
    try:
        fleet.start()
        return list(_Round(setup, fleet, budget, repeat, seed).samples())
    finally:
        fleet.kill()


class _Round:
    def __init__(self, setup: Setup, fleet: Fleet, budget: Budget, repeat: int, seed: int) -> None:
        self._setup = setup
        self._fleet = fleet
        self._budget = budget
        self._repeat = repeat
        self._seed = seed + repeat
        # Each connection has at least one value of its own.
        values = max(budget.value_bytes // setup.value_bytes, setup.connections)
        self._counts = [high - low for low, high in load.shares(values, setup.connections)]

    def samples(self) -> Iterator[Sample]:
        """Measure the workloads, each on what the one before left behind."""
        written, sample = self._set()
        yield sample
        read = written
        if self._fleet.persistent:
            read, sample = self._get(COLD, written, written)
            yield sample
        else:
            # A first pass, for the page tables and buffers that the cold one warms elsewhere.
            read, _ = self._get(WARM, written, written)
        _, sample = self._get(WARM, written, read)
        yield sample
        yield self._mixed(written)

    def _set(self) -> tuple[dict[int, int], Sample]:
        plans = [
            ConnectionJob(number, self._port(number), writes=(0, count)) for number, count in enumerate(self._counts)
        ]
        before = self._fleet.reading()
        outcome = self._run(plans, load.WRITE)
        began = time.monotonic()
        rest_s: float | None = None
        if self._fleet.persistent:
            self._fleet.to_rest()
            rest_s = outcome.seconds + time.monotonic() - began
            self._fleet.start()
        after = self._fleet.reading()
        sample = self._sample(SET, outcome, before, after, sum(self._counts), rest_s)
        if self._fleet.persistent:
            # The start read files, and wrote some from the WAL.
            self._fleet.drop_cache()
        return dict(outcome.writes), sample

    def _get(self, workload: str, written: dict[int, int], limits: dict[int, int]) -> tuple[dict[int, int], Sample]:
        plans = [
            ConnectionJob(number, self._port(number), reads=(0, count), limit=limits[number])
            for number, count in written.items()
        ]
        before = self._fleet.reading()
        outcome = self._run(plans, load.READ)
        sample = self._sample(workload, outcome, before, self._fleet.reading(), sum(limits.values()))
        return dict(outcome.reads), sample

    def _mixed(self, written: dict[int, int]) -> Sample:
        plans = [
            ConnectionJob(
                number,
                self._port(number),
                reads=(0, written[number]),
                # New values, for those of a cache never change; behind the planned ones, which may not all be written.
                writes=(count, count + max(1, written[number])),
                limit=written[number],
            )
            for number, count in enumerate(self._counts)
        ]
        before = self._fleet.reading()
        outcome = self._run(plans, READ_SHARE)
        return self._sample(MIXED, outcome, before, self._fleet.reading(), outcome.requests)

    def _run(self, plans: list[ConnectionJob], read_share: float) -> Outcome:
        return load.run(self._setup, plans, read_share, self._budget.seconds, self._seed)

    def _port(self, connection: int) -> int:
        return self._fleet.ports[connection % self._setup.instances]

    def _sample(
        self,
        workload: str,
        outcome: Outcome,
        before: Reading,
        after: Reading,
        planned: int,
        rest_s: float | None = None,
    ) -> Sample:
        used = after.usage - before.usage
        counted_read = counted_written = disk_read = disk_written = None
        if before.counters and after.counters:
            counted_read = after.counters.read - before.counters.read
            counted_written = after.counters.written - before.counters.written
        if before.disk and after.disk:
            disk_read = after.disk.read_bytes - before.disk.read_bytes
            disk_written = after.disk.write_bytes - before.disk.write_bytes
        # Write amplification only where the store came to rest: before, part of the writes is still in memory.
        wrote = outcome.bytes_written if rest_s is not None else 0
        read = outcome.bytes_read if self._fleet.persistent else 0
        latencies = outcome.latencies_ms
        return Sample(
            setup=self._setup.name,
            server=self._setup.server,
            repeat=self._repeat,
            workload=workload,
            requests=outcome.requests,
            bytes=outcome.bytes,
            seconds=outcome.seconds,
            capped=outcome.requests < planned,
            mb_s=mb_per_s(outcome.bytes, outcome.seconds),
            rest_mb_s=None if rest_s is None else mb_per_s(outcome.bytes, rest_s),
            p50_ms=percentile(latencies, 50),
            p95_ms=percentile(latencies, 95),
            p99_ms=percentile(latencies, 99),
            max_ms=max(latencies),
            client_cpu_s_per_gib=per_gib(outcome.cpu_s, outcome.bytes),
            server_cpu_s_per_gib=per_gib(used.cpu_s, outcome.bytes),
            foreign_cores=after.foreign_cores_since(before),
            write_amp_server=amplification(counted_written, wrote) if wrote else None,
            write_amp_process=amplification(used.write_bytes, wrote) if wrote else None,
            write_amp_device=amplification(disk_written, wrote) if wrote else None,
            read_amp_server=amplification(counted_read, read) if read else None,
            read_amp_process=amplification(used.read_bytes, read) if read else None,
            read_amp_device=amplification(disk_read, read) if read else None,
        )
