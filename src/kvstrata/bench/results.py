"""What a run found, and its JSON form (docs/bench.md describes every field)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kvstrata.bench.fields import from_fields
from kvstrata.bench.rawdisk import RawSample
from kvstrata.bench.study import Setup

SCHEMA = "kvstrata.bench.store/1"
SET, COLD, WARM, MIXED = "set", "get_cold", "get_warm", "mixed"
WORKLOADS = (SET, COLD, WARM, MIXED)

# Below it a read that should have been cold was served from memory; above the other, a warm one was not.
_COLD_FROM, _WARM_TO = 0.9, 0.1


@dataclass(frozen=True)
class Sample:
    """One workload of one setup in one round. What was not measured, or has no meaning there, is None."""

    setup: str
    server: str
    repeat: int
    workload: str
    requests: int
    bytes: int
    seconds: float
    capped: bool
    mb_s: float
    rest_mb_s: float | None
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    client_cpu_s_per_gib: float
    server_cpu_s_per_gib: float
    foreign_cores: float
    write_amp_server: float | None
    write_amp_process: float | None
    write_amp_device: float | None
    read_amp_server: float | None
    read_amp_process: float | None
    read_amp_device: float | None

    @property
    def as_named(self) -> bool:
        """Whether a cold read came from the drive and a warm one did not, by the processes' own counters."""
        if self.read_amp_process is None:
            return True
        if self.workload == COLD:
            return self.read_amp_process >= _COLD_FROM
        return self.workload != WARM or self.read_amp_process <= _WARM_TO


@dataclass(frozen=True)
class Failure:
    """A setup that could not be measured in one round."""

    setup: str
    repeat: int
    error: str


@dataclass(frozen=True)
class Row:
    """The medians of one workload of one setup, and its ratios within the rounds."""

    setup: str
    axis: str
    workload: str
    repeats: int
    mb_s: float
    mb_s_low: float
    mb_s_high: float
    rest_mb_s: float | None
    p50_ms: float
    p95_ms: float
    p99_ms: float
    client_cpu_s_per_gib: float
    server_cpu_s_per_gib: float
    foreign_cores: float
    write_amp_server: float | None
    write_amp_process: float | None
    write_amp_device: float | None
    read_amp_server: float | None
    read_amp_process: float | None
    read_amp_device: float | None
    to_base: float | None
    to_raw: float | None
    to_dram: float | None
    as_named: bool
    capped: bool


@dataclass
class Run:
    """Everything that one `kvstrata bench store` found."""

    created: str
    seed: int
    repeats: int
    budget: Mapping[str, float]
    host: Mapping[str, Any]
    versions: Mapping[str, str]
    setups: Sequence[Setup]
    notes: list[str] = field(default_factory=list)
    raw: list[RawSample] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    complete: bool = False
    duration_s: float = 0.0

    def samples_of(self, setup: str, workload: str) -> list[Sample]:
        """Return the samples of one setup and workload, by round."""
        return [sample for sample in self.samples if (sample.setup, sample.workload) == (setup, workload)]


def to_json(run: Run, rows: Sequence[Row]) -> dict[str, Any]:
    """Return the whole run, as it is written into the file."""
    return {"schema": SCHEMA, **asdict(run), "summary": [asdict(row) for row in rows]}


def from_json(form: Mapping[str, Any]) -> Run:
    """Return the run of a file; its summary is left out.

    Raises:
        KeyError: a field is missing.
        TypeError: one is of another kind, or not known.
    """
    return from_fields(Run, form, {"setups": Setup, "raw": RawSample, "samples": Sample, "failures": Failure})


def write_json(path: Path, run: Run, rows: Sequence[Row]) -> None:
    """Write the run into a file."""
    path.write_text(json.dumps(to_json(run, rows), indent=1) + "\n")
