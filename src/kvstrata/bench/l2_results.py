"""What `bench l2` found: samples, their medians, and the targets they reach or do not reach. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from kvstrata.bench.fields import from_fields
from kvstrata.bench.statistics import median_of, paired_ratio
from kvstrata.l2.config import EndpointConfig, TierConfig

SCHEMA = "kvstrata.bench.l2/1"
STORE, LOOKUP, COLD, WARM = "store", "lookup", "cold", "warm"
WORKLOADS = (STORE, LOOKUP, COLD, WARM)
MOVING = (STORE, COLD, WARM)
LOOKUP_LIMIT = 64 << 10
# A read of which less came from the drive was not cold.
_COLD_FROM = 0.9


@dataclass(frozen=True)
class Case:
    """One client over some stores."""

    name: str
    client: str
    unix: bool = False
    instances: int = 1
    fields: Mapping[str, Any] = field(default_factory=dict)
    axis: str = ""
    """What a sweep varies with it."""

    @property
    def ours(self) -> bool:
        """Whether kvstrata.l2 is in it."""
        return self.client in ("tier", "kvstrata")

    @property
    def connections(self) -> int:
        """How many connections load one chunk, where it is ours."""
        stores = tuple(EndpointConfig("127.0.0.1", 1 + number, 1) for number in range(self.instances))
        config = TierConfig(endpoints=stores, namespace="kvs-bench", **self.fields)
        return config.loads_per_endpoint * (config.stripe_width or self.instances)


@dataclass(frozen=True)
class Sample:
    """One workload of one case in one round. Seconds of CPU are those of all threads of client or stores."""

    case: str
    round: int
    workload: str
    chunks: int
    bytes: int
    seconds: float
    mb_s: float | None
    """Payload in 10^6 bytes a second; None for lookups."""
    client_cpu_s: float
    server_cpu_s: float
    raw_mb_s: float | None
    """What the raw drive did just before, in the same direction."""
    drive_read_bytes: int = 0
    """What the stores fetched from the drive."""
    asked_bytes: int = 0
    """What the stores read from the kernel, page cache included."""
    rest_mb_s: float | None = None
    """Payload by the time until all of it is on the drive and the stores have ended."""
    write_amplification: float | None = None
    one_lookup_drive_bytes: int | None = None
    """What the stores fetched from the drive for the first lookup, of a single chunk."""
    one_lookup_asked_bytes: int | None = None

    @property
    def as_named(self) -> bool:
        """Whether a cold read came from the drive."""
        return self.workload != COLD or self.drive_read_bytes >= _COLD_FROM * self.bytes


@dataclass(frozen=True)
class Journey:
    """One chunk at a time, in one round: milliseconds of a chunk."""

    case: str
    round: int
    chunks: int
    lookup_ms: float
    load_ms: float
    stages_ms: Mapping[str, float]
    """What each connection that loads it does meanwhile, adding up to `load_ms`; empty where the client tells nothing.

    server: wait for the reply to begin; copy: receive it; checksum; wait: the rest (queues, threads, Python).
    """


@dataclass(frozen=True)
class Row:
    """The medians of one workload of one case."""

    case: str
    axis: str
    workload: str
    rounds: int
    mb_s: float | None
    mb_s_low: float | None
    mb_s_high: float | None
    rest_mb_s: float | None
    ms_per_chunk: float
    client_cpu_s_per_gib: float
    server_cpu_s_per_gib: float
    cpu_s_per_gib: float
    to_raw: float | None
    """The median of the ratios to the raw drive just before; of a store, when everything is on the drive."""
    acknowledged_to_raw: float | None
    to_resp: float | None
    write_amplification: float | None
    one_lookup_drive_bytes: float | None
    one_lookup_asked_bytes: float | None
    as_named: bool


@dataclass(frozen=True)
class Target:
    """What the issue asks for, what was seen, and whether that is enough; None where it was not measured."""

    case: str
    what: str
    wanted: str
    seen: str
    reached: bool | None


@dataclass(frozen=True)
class Failure:
    """A case that could not be measured in one round."""

    case: str
    round: int
    error: str


@dataclass
class Run:
    """Everything that one run found."""

    created: str
    seed: int
    rounds: int
    chunks: int
    chunk_bytes: int
    batch: int
    passes: int
    host: Mapping[str, Any]
    versions: Mapping[str, str]
    store: str
    cases: Sequence[Case]
    notes: list[str] = field(default_factory=list)
    raw: list[Mapping[str, Any]] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    journeys: list[Journey] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    foreign_cores: list[float] = field(default_factory=list)
    complete: bool = False
    duration_s: float = 0.0


def rows(run: Run) -> list[Row]:
    """Return the medians, by workload and then in the order of the cases."""
    return [
        _row(run, case, workload, samples)
        for workload in WORKLOADS
        for case in run.cases
        if (samples := [s for s in run.samples if (s.case, s.workload) == (case.name, workload)])
    ]


def targets(run: Run, found: Sequence[Row]) -> list[Target]:
    """Judge each of our cases."""
    by = {(row.case, row.workload): row for row in found}
    result: list[Target] = []
    for case in run.cases:
        if case.ours and not case.axis:
            result += _targets_of(case.name, by, [c.name for c in run.cases if not c.ours])
    return result


def to_json(run: Run) -> dict[str, Any]:
    """Return everything, as it is written into the file."""
    found = rows(run)
    return {
        "schema": SCHEMA,
        **asdict(run),
        "summary": [asdict(row) for row in found],
        "targets": [asdict(target) for target in targets(run, found)],
    }


def from_json(form: Mapping[str, Any]) -> Run:
    """Return the run of a file; what is made of its samples there is left out.

    Raises:
        KeyError: a field is missing.
        TypeError: one is of another kind, or not known.
    """
    return from_fields(Run, form, {"cases": Case, "samples": Sample, "journeys": Journey, "failures": Failure})


def journey_stages(load_ms: float, seconds: Mapping[str, float], chunks: int, connections: int) -> dict[str, float]:
    """Return `Journey.stages_ms` from the seconds of each stage over all pieces of all chunks."""
    if not seconds:
        return {}
    known = {stage: seconds.get(stage, 0.0) * 1000 / chunks / connections for stage in ("server", "copy", "checksum")}
    return {"wait": max(0.0, load_ms - sum(known.values())), **known}


def _row(run: Run, case: Case, workload: str, samples: Sequence[Sample]) -> Row:
    rates = {s.round: s.mb_s for s in samples if s.mb_s is not None}
    rests = {s.round: s.rest_mb_s for s in samples if s.rest_mb_s is not None}
    raws = {s.round: s.raw_mb_s for s in samples if s.raw_mb_s is not None}
    resp = {
        s.round: s.mb_s
        for s in run.samples
        if s.case in ("resp", "resp-native") and s.workload == workload and s.mb_s is not None
    }
    client, server, both = (
        median(cpu / (s.bytes / (1 << 30)) for s, cpu in zip(samples, values, strict=True))
        for values in (
            [s.client_cpu_s for s in samples],
            [s.server_cpu_s for s in samples],
            [s.client_cpu_s + s.server_cpu_s for s in samples],
        )
    )
    return Row(
        case=case.name,
        axis=case.axis,
        workload=workload,
        rounds=len(samples),
        mb_s=median_of(list(rates.values())),
        mb_s_low=min(rates.values(), default=None),
        mb_s_high=max(rates.values(), default=None),
        rest_mb_s=median_of(list(rests.values())),
        ms_per_chunk=median(s.seconds / s.chunks * 1000 for s in samples),
        client_cpu_s_per_gib=client,
        server_cpu_s_per_gib=server,
        cpu_s_per_gib=both,
        to_raw=paired_ratio(rests if workload == STORE else rates, raws),
        acknowledged_to_raw=paired_ratio(rates, raws) if workload == STORE else None,
        to_resp=paired_ratio(rates, resp),
        write_amplification=median_of([s.write_amplification for s in samples]),
        one_lookup_drive_bytes=median_of([s.one_lookup_drive_bytes for s in samples]),
        one_lookup_asked_bytes=median_of([s.one_lookup_asked_bytes for s in samples]),
        as_named=all(s.as_named for s in samples),
    )


def _targets_of(case: str, by: Mapping[tuple[str, str], Row], others: Sequence[str]) -> list[Target]:
    store, lookup, cold, warm = (by.get((case, workload)) for workload in WORKLOADS)
    cold_ratio = cold.to_raw if cold and cold.as_named else None
    found = [
        _least(case, "cold load / raw read of the drive", 0.9, cold_ratio),
        _least(case, "warm load / resp's", 4.0, warm.to_resp if warm else None),
        _least(case, "store, until it is on the drive / raw write", 0.9, store.to_raw if store else None),
        _most(case, "write amplification", 1.3, store.write_amplification if store else None, ".2f"),
        _most(
            case,
            "bytes from the drive to look up one chunk, below",
            LOOKUP_LIMIT,
            lookup.one_lookup_drive_bytes if lookup else None,
            ",.0f",
        ),
    ]
    for other in others:
        for workload in MOVING:
            ours, theirs = by.get((case, workload)), by.get((other, workload))
            if theirs is not None:
                wanted = theirs.cpu_s_per_gib
                name = f"CPU s/GiB of {workload}, client and store, below {other}'s"
                found.append(_most(case, name, wanted, ours.cpu_s_per_gib if ours else None, ".2f"))
    return found


def _least(case: str, what: str, wanted: float, seen: float | None) -> Target:
    return Target(case, what, f">= {wanted:g}", _shown(seen, ".2f"), None if seen is None else seen >= wanted)


def _most(case: str, what: str, wanted: float, seen: float | None, form: str) -> Target:
    reached = None
    if seen is not None:
        reached = seen < wanted if "below" in what else seen <= wanted
    sign = "<" if "below" in what else "<="
    return Target(case, what, f"{sign} {format(wanted, form)}", _shown(seen, form), reached)


def _shown(value: float | None, form: str) -> str:
    return "not measured" if value is None else format(value, form)
