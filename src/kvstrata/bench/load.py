"""Spread a workload over client processes, start them together, and add up what they did."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from kvstrata.bench.errors import BenchError
from kvstrata.bench.resp_load import ConnectionJob, Job, WorkerDone
from kvstrata.bench.study import Setup

READ, WRITE = 1.0, 0.0
_GRACE_S = 90.0


@dataclass(frozen=True)
class Outcome:
    """What all clients did together."""

    requests: int
    bytes_read: int
    bytes_written: int
    seconds: float
    latencies_ms: Sequence[float]
    cpu_s: float
    reads: Mapping[int, int]
    writes: Mapping[int, int]

    @property
    def bytes(self) -> int:
        """Bytes of values moved, in both directions."""
        return self.bytes_read + self.bytes_written


def shares(values: int, connections: int) -> list[tuple[int, int]]:
    """Split the numbers 0..values into contiguous ranges, sizes differing by one at most."""
    edges = [values * index // connections for index in range(connections + 1)]
    return list(pairwise(edges))


def processes(connections: int, cores: int) -> int:
    """Return how many client processes to use: half of the cores, for the other half is the server's."""
    return min(connections, max(1, cores // 2))


def run(setup: Setup, plans: Sequence[ConnectionJob], read_share: float, seconds: float, seed: int) -> Outcome:
    """Run one workload and wait for its end.

    Raises:
        BenchError: a client failed, got a wrong answer, or did not end in time.
    """
    job = Job(
        plans,
        setup.value_bytes,
        setup.layout,
        setup.fields_per_hash,
        setup.pipeline,
        seconds,
        seed,
        read_share=read_share,
    )
    count = processes(len(plans), os.cpu_count() or 1)
    jobs = [replace(job, connections=plans[index::count]) for index in range(count)]
    workers: list[subprocess.Popen[str]] = []
    try:
        for part in jobs:
            workers.append(_start(part))
        for worker in workers:
            _expect_ready(worker)
        for worker in workers:
            _tell(worker, "go")
        return _add_up([_finish(worker, seconds + _GRACE_S) for worker in workers], setup.value_bytes)
    finally:
        for worker in workers:
            if worker.poll() is None:
                worker.kill()
            worker.communicate()


def _start(job: Job) -> subprocess.Popen[str]:
    worker = subprocess.Popen(
        [sys.executable, "-m", "kvstrata.bench.resp_load"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _tell(worker, job.to_json())
    return worker


def _tell(worker: subprocess.Popen[str], line: str) -> None:
    assert worker.stdin is not None  # noqa: S101
    worker.stdin.write(line + "\n")
    worker.stdin.flush()


def _expect_ready(worker: subprocess.Popen[str]) -> None:
    assert worker.stdout is not None  # noqa: S101
    if worker.stdout.readline() != "ready\n":
        _, errors = worker.communicate(timeout=_GRACE_S)
        raise BenchError(f"a client could not start: {errors.strip().splitlines()[-1:]}")


def _finish(worker: subprocess.Popen[str], timeout_s: float) -> WorkerDone:
    try:
        output, errors = worker.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"a client did not end within {timeout_s:.0f} s") from error
    if worker.returncode != 0:
        raise BenchError(f"a client failed: {errors.strip().splitlines()[-1:]}")
    result: WorkerDone = json.loads(output)
    return result


def _add_up(results: Sequence[WorkerDone], value_bytes: int) -> Outcome:
    links = [link for result in results for link in result["connections"]]
    if failed := [link["error"] for link in links if link["error"]]:
        raise BenchError(f"{len(failed)} of {len(links)} connections failed, the first with: {failed[0]}")
    reads = {link["number"]: link["read"] for link in links}
    writes = {link["number"]: link["written"] for link in links}
    return Outcome(
        requests=sum(reads.values()) + sum(writes.values()),
        bytes_read=sum(reads.values()) * value_bytes,
        bytes_written=sum(writes.values()) * value_bytes,
        seconds=max(link["ended"] for link in links) - min(link["began"] for link in links),
        latencies_ms=[latency / 1000 for link in links for latency in link["latencies_us"]],
        cpu_s=sum(result["cpu_s"] for result in results),
        reads=reads,
        writes=writes,
    )
