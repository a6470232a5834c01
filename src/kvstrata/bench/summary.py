"""Medians and ratios of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from kvstrata.bench.rawdisk import RawSample
from kvstrata.bench.results import COLD, SET, WORKLOADS, Row, Run, Sample
from kvstrata.bench.statistics import median_of, paired_ratio
from kvstrata.bench.study import BASE, DRAM, Setup

_OPTIONAL = (
    "rest_mb_s",
    "write_amp_server",
    "write_amp_process",
    "write_amp_device",
    "read_amp_server",
    "read_amp_process",
    "read_amp_device",
)
_ALWAYS = ("mb_s", "p50_ms", "p95_ms", "p99_ms", "client_cpu_s_per_gib", "server_cpu_s_per_gib", "foreign_cores")


def summarize(run: Run) -> list[Row]:
    """Return a row for each setup and workload that was measured, in the study's order."""
    return [
        _row(run, setup, workload, samples)
        for setup in run.setups
        for workload in WORKLOADS
        if (samples := run.samples_of(setup.name, workload))
    ]


def _row(run: Run, setup: Setup, workload: str, samples: Sequence[Sample]) -> Row:
    rates = {sample.repeat: sample.mb_s for sample in samples}
    base = {sample.repeat: sample.mb_s for sample in run.samples_of(BASE, workload)}
    dram = {sample.repeat: sample.mb_s for sample in run.samples_of(DRAM, workload)}
    medians: dict[str, Any] = {name: median(getattr(sample, name) for sample in samples) for name in _ALWAYS}
    medians |= {name: median_of([getattr(sample, name) for sample in samples]) for name in _OPTIONAL}
    return Row(
        setup=setup.name,
        axis=setup.axis,
        workload=workload,
        repeats=len(samples),
        mb_s_low=min(rates.values()),
        mb_s_high=max(rates.values()),
        to_base=paired_ratio(rates, base),
        to_raw=paired_ratio(*_against_raw(workload, samples, run.raw)),
        to_dram=paired_ratio(rates, dram),
        as_named=all(sample.as_named for sample in samples),
        capped=any(sample.capped for sample in samples),
        **medians,
    )


def _against_raw(
    workload: str, samples: Sequence[Sample], raw: Sequence[RawSample]
) -> tuple[Mapping[int, float], Mapping[int, float]]:
    """Return what the raw drive is a measure for: writes until the store is at rest, and cold reads."""
    if workload == SET:
        rest = {sample.repeat: sample.rest_mb_s for sample in samples if sample.rest_mb_s is not None}
        return rest, {sample.repeat: sample.write_mb_s for sample in raw}
    if workload == COLD:
        return {sample.repeat: sample.mb_s for sample in samples}, {sample.repeat: sample.read_mb_s for sample in raw}
    return {}, {}
