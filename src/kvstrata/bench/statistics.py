"""The arithmetic of the results: percentiles, rates, amplification, ratios. Pure, so that it can be checked by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

from kvstrata.bench.sizes import GIB


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile: the smallest value that at least `percent` per cent do not exceed.

    Nearest rank, because it is always a latency that occurred; interpolation invents some between few samples.
    """
    if not values:
        raise ValueError("no values to take a percentile of")
    if not 0 < percent <= 100:
        raise ValueError(f"a percentile lies in (0, 100], not at {percent}")
    return sorted(values)[math.ceil(percent / 100 * len(values)) - 1]


def mb_per_s(size: int, seconds: float) -> float:
    """Return the rate in MB/s (10^6 bytes, as drives are sold and fio reports)."""
    return size / 1e6 / seconds


def per_gib(seconds: float, size: int) -> float:
    """Return the seconds (of CPU) that each GiB cost."""
    return seconds / (size / GIB)


def amplification(moved: int | None, asked: int) -> float | None:
    """Return the bytes moved below for each byte asked for above; None where the counter is missing."""
    return None if moved is None else moved / asked


def paired_ratio(values: Mapping[int, float], baseline: Mapping[int, float]) -> float | None:
    """Return the median over the rounds of value / baseline of the same round; None without a common round.

    Paired, because a shared disk drifts: numbers of one round were measured within minutes of each other, and the
    median of their ratios is not moved by what changed between the rounds.
    """
    ratios = [values[turn] / baseline[turn] for turn in sorted(values) if baseline.get(turn)]
    return median(ratios) if ratios else None


def median_of(values: Sequence[float | None]) -> float | None:
    """Return the median of those that were measured; None if none was."""
    measured = [value for value in values if value is not None]
    return median(measured) if measured else None
