"""From raw samples to the figures of a report. Pure: every number here can be made again from the file's phases.

Percentiles are nearest rank (bench/statistics.py): each is a latency that occurred. Those of ITL are over all gaps of
all answered requests together. Rates are over the whole phase, from the first request's begin to the last one's end,
but for the figures `full_*`: those are of the time in which all conversations of a closed loop were under way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from kvstrata.bench.serving.full_load import full_until_s, output_tokens_until
from kvstrata.bench.serving.model import Phase, TierTokens
from kvstrata.bench.statistics import paired_ratio, percentile
from kvstrata.cluster import Prices

PERCENTS = (50, 95, 99)


@dataclass(frozen=True)
class Figures:
    """One phase. Times in seconds, rates per second; None: no sample tells. Token counts are of prompts, by source."""

    requests: int
    failed: int
    duration_s: float
    output_per_s: float
    requests_per_s: float
    ttft_p50: float | None
    ttft_p95: float | None
    ttft_p99: float | None
    itl_p50: float | None
    itl_p95: float | None
    itl_p99: float | None
    e2e_p50: float | None
    e2e_p95: float | None
    e2e_p99: float | None
    prompt_tokens: int
    output_tokens: int
    hbm_tokens: int | None
    l1_tokens: int | None
    l2_tokens: int | None
    computed_tokens: int | None
    gpu_s: float | None
    """GPUs times duration; None where nothing computed on a GPU."""
    full_output_per_s: float | None
    """Output tokens that came while all `active` conversations were under way, per second of that time (full_load.py);
    None where there is no such time."""
    full_ttft_p95: float | None
    """Seconds; of the requests that were sent in that time."""

    def cost_per_million(self, prices: Prices | None) -> float | None:
        """Return the price of a million output tokens, prompts included; None without a GPU, a price or an answer."""
        if prices is None or self.gpu_s is None or not self.output_tokens:
            return None
        return self.gpu_s / 3600 * prices.gpu_hour / self.output_tokens * 1e6


# Figures of which a ratio against the reference is of use, and whether more of it is better.
COMPARED: Mapping[str, bool] = {
    "output_per_s": True,
    "requests_per_s": True,
    "ttft_p50": False,
    "ttft_p95": False,
    "full_output_per_s": True,
    "full_ttft_p95": False,
}


def of(phase: Phase, gpus: int, active: int | None = None) -> Figures:
    """Return the figures of a phase.

    Args:
        phase: what was measured.
        gpus: how many GPUs it ran on.
        active: how many conversations its workload holds at once; None in open loop, or where nothing tells.
    """
    good = [sample for sample in phase.samples if sample.ok]
    first = [sample.ttft_s for sample in good if sample.ttft_s is not None]
    gaps = [gap for sample in good for gap in sample.itl_s]
    whole = [sample.e2e_s for sample in good]
    output = sum(sample.output_tokens for sample in good)
    tiers = phase.tiers or TierTokens(None, None, None, None)
    full_s = full_until_s(phase, active)
    full_first = [each.ttft_s for each in good if each.ttft_s is not None and each.started_s < (full_s or 0.0)]
    return Figures(
        len(phase.samples),
        len(phase.samples) - len(good),
        phase.duration_s,
        output / phase.duration_s if phase.duration_s > 0 else 0.0,
        len(good) / phase.duration_s if phase.duration_s > 0 else 0.0,
        *_spread(first),
        *_spread(gaps),
        *_spread(whole),
        prompt_tokens=sum(sample.prompt_tokens for sample in good),
        output_tokens=output,
        hbm_tokens=tiers.hbm,
        l1_tokens=tiers.l1,
        l2_tokens=tiers.l2,
        computed_tokens=tiers.computed,
        gpu_s=gpus * phase.duration_s if gpus else None,
        full_output_per_s=output_tokens_until(good, full_s) / full_s if full_s else None,
        full_ttft_p95=percentile(full_first, 95) if full_first else None,
    )


def _spread(values: Sequence[float]) -> tuple[float | None, float | None, float | None]:
    p50, p95, p99 = (percentile(values, percent) if values else None for percent in PERCENTS)
    return p50, p95, p99


@dataclass(frozen=True)
class Spread:
    """The median of the rounds, with the least and the most of them."""

    median: float
    low: float
    high: float
    values: tuple[float, ...]


@dataclass(frozen=True)
class Row:
    """A configuration under one workload in one pass, over all rounds that measured it."""

    configuration: str
    workload: str
    pass_: str
    by_round: Mapping[int, Figures]
    ratios: Mapping[str, float]
    """Of the figures in COMPARED: the median of the rounds' ratios to the reference, each within its round."""

    @property
    def rounds(self) -> int:
        """How many rounds there are."""
        return len(self.by_round)

    def spread(self, figure: str) -> Spread | None:
        """Return a figure over the rounds; None where none of them has it."""
        return self.spread_of(lambda figures: getattr(figures, figure))

    def spread_of(self, read: Callable[[Figures], float | None]) -> Spread | None:
        """Return what `read` gets out of the rounds."""
        values = tuple(value for value in map(read, self.by_round.values()) if value is not None)
        return Spread(median(values), min(values), max(values), values) if values else None


def rows(phases: Iterable[Phase], gpus: int, reference: str, active: Mapping[str, int | None] = {}) -> list[Row]:
    """Return the rows by workload and pass, in the order of the phases, the reference first.

    Phases with failed requests count: a configuration that answers half of them fast is told by its `failed`.

    Args:
        phases: what was measured.
        gpus: how many GPUs each phase ran on.
        reference: the configuration that ratios are against.
        active: how many conversations each workload holds at once; of one that is not named nothing is full.
    """
    found: dict[tuple[str, str, str], dict[int, Figures]] = {}
    for phase in phases:
        key = (phase.workload, phase.pass_, phase.configuration)
        found.setdefault(key, {})[phase.round] = of(phase, gpus, active.get(phase.workload))
    groups = list(dict.fromkeys((workload, pass_) for workload, pass_, _ in found))
    made = []
    for group in groups:
        of_group = {name: figures for (*key, name), figures in found.items() if tuple(key) == group}
        names = sorted(of_group, key=lambda name: name != reference)
        base = of_group.get(reference, {})
        made += [Row(name, *group, of_group[name], _ratios(of_group[name], base)) for name in names]
    return made


def _ratios(mine: Mapping[int, Figures], base: Mapping[int, Figures]) -> dict[str, float]:
    def read(figures: Mapping[int, Figures], name: str) -> dict[int, float]:
        values = {turn: getattr(each, name) for turn, each in figures.items()}
        return {turn: value for turn, value in values.items() if value is not None}

    found = {name: paired_ratio(read(mine, name), read(base, name)) for name in COMPARED}
    return {name: ratio for name, ratio in found.items() if ratio is not None}
