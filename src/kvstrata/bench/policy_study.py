"""Every write policy on every workload, with every size of L1: medians over seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from statistics import median

from kvstrata.bench.policy import CANDIDATES, Candidate, Counts, drive_writes_per_day, replay
from kvstrata.bench.workloads import Request, multi_turn, skewed

GIB = 1 << 30
KIB = 1 << 10


class Workload(StrEnum):
    """What is replayed."""

    MULTI_TURN = "multi_turn"
    MULTI_TURN_TWICE = "multi_turn_twice"
    SKEWED = "skewed"

    def trace(self, seed: int, chunk_tokens: int) -> list[Request]:
        """Return the requests of one seed."""
        if self is Workload.SKEWED:
            return skewed(seed, chunk_tokens=chunk_tokens)
        return multi_turn(seed, passes=1 if self is Workload.MULTI_TURN else 2, chunk_tokens=chunk_tokens)


@dataclass(frozen=True)
class Parameters:
    """What a run depends on beside the policies; everything that a table needs to be made again."""

    seed: int = 1
    repeats: int = 3
    l1_gib: tuple[float, ...] = (6.0, 60.0)
    l2_gib: float = 256.0
    chunk_tokens: int = 256
    kib_per_token: float = 128.0
    """2 * layers * KV heads * head size * bytes of a value: 128 for Llama-3.1-8B in 16 bits."""
    requests_per_s: float = 10.0
    drive_gb: float = 3840.0
    """10^9 bytes, as drives are sold: all drives that share the writes."""
    write_amplification: float = 1.25
    """Bytes that the store writes for each byte of a chunk: docs/kvrocks.md, blob files without WAL."""

    @property
    def chunk_bytes(self) -> float:
        """Size of one chunk."""
        return self.chunk_tokens * self.kib_per_token * KIB

    def chunks(self, gib: float) -> int:
        """Return how many chunks fit into a tier."""
        return int(gib * GIB / self.chunk_bytes)


@dataclass(frozen=True)
class Row:
    """One policy on one workload; of several seeds, the median of each number by itself."""

    requests: float
    prompt_tokens: float
    offered_gib: float
    written_gib: float
    written_to_all: float
    """Written by this policy / written by `all`, of the same trace."""
    drive_writes_per_day: float
    l1_hit_tokens: float
    l2_hit_tokens: float
    hit_rate: float
    """Tokens from L1 and L2 / all prompt tokens."""
    hit_rate_minus_all: float
    read_to_written: float | None
    """Bytes read from L2 / bytes written to it; None where nothing was written."""


@dataclass(frozen=True)
class Result:
    """The rows of one policy, workload and L1: the median, and each seed's."""

    workload: Workload
    l1_gib: float
    policy: str
    median: Row
    samples: Sequence[Row]


def run(parameters: Parameters, workloads: Sequence[Workload] = tuple(Workload)) -> Iterator[Result]:
    """Replay and yield the results, in the order of workloads, sizes of L1 and policies."""
    seeds = range(parameters.seed, parameters.seed + parameters.repeats)
    for workload in workloads:
        traces = [workload.trace(seed, parameters.chunk_tokens) for seed in seeds]
        for l1_gib in parameters.l1_gib:
            baseline: list[Counts] = []
            for candidate in CANDIDATES:
                counts = [_replay(trace, candidate, l1_gib, parameters) for trace in traces]
                # CANDIDATES begins with `all`, to which the others are compared.
                baseline = baseline or counts
                samples = [row_of(one, base, parameters) for one, base in zip(counts, baseline, strict=True)]
                yield Result(workload, l1_gib, candidate.label, _median(samples), samples)


def row_of(counts: Counts, all_written: Counts, parameters: Parameters) -> Row:
    """Return the numbers of one replay beside that of the policy `all` on the same trace."""
    size = parameters.chunk_bytes
    return Row(
        requests=counts.requests,
        prompt_tokens=counts.prompt_tokens,
        offered_gib=counts.offered * size / GIB,
        written_gib=counts.written * size / GIB,
        written_to_all=counts.written / all_written.written,
        drive_writes_per_day=drive_writes_per_day(
            counts.written * size,
            counts.requests,
            parameters.requests_per_s,
            parameters.write_amplification,
            parameters.drive_gb * 1e9,
        ),
        l1_hit_tokens=counts.l1_hits * parameters.chunk_tokens,
        l2_hit_tokens=counts.l2_hits * parameters.chunk_tokens,
        hit_rate=_hit_rate(counts, parameters),
        hit_rate_minus_all=_hit_rate(counts, parameters) - _hit_rate(all_written, parameters),
        read_to_written=counts.l2_hits / counts.written if counts.written else None,
    )


def _hit_rate(counts: Counts, parameters: Parameters) -> float:
    return (counts.l1_hits + counts.l2_hits) * parameters.chunk_tokens / counts.prompt_tokens


def _replay(trace: Sequence[Request], candidate: Candidate, l1_gib: float, parameters: Parameters) -> Counts:
    l2_chunks = parameters.chunks(parameters.l2_gib)
    return replay(
        trace, candidate.make(l2_chunks), parameters.chunks(l1_gib), l2_chunks, against_victim=candidate.against_victim
    )


def _median(samples: Sequence[Row]) -> Row:
    values: dict[str, float | None] = {}
    for field in fields(Row):
        seen = [value for sample in samples if (value := getattr(sample, field.name)) is not None]
        values[field.name] = median(seen) if seen else None
    return Row(**values)  # type: ignore[arg-type]  # only read_to_written may be None, and is so where it may
