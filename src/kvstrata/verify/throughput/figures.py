"""From raw samples of requests to the figures that are judged. Pure functions.

Every percentile is linear between the two nearest samples (as numpy.percentile and `vllm bench serve` have it). The
inter-token latency (ITL) is the gap between two arrivals that carry tokens; its percentiles are over all gaps of all
requests together. Rates are over the time from the first request's start to the last one's end, so that they include
the beginning and the end of the load, when fewer requests run than stated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from kvstrata.verify.check import Json


@dataclass(frozen=True)
class Sample:
    """One request. Times are in seconds; `started_s` counts from the start of the load.

    `error` says why there is no answer; `cut` that it was stopped because the time for the load was up.
    """

    number: int
    started_s: float
    ttft_s: float | None
    e2e_s: float
    prompt_tokens: int
    output_tokens: int
    gaps_s: tuple[float, ...] = ()
    error: str | None = None
    cut: bool = False

    @property
    def whole(self) -> bool:
        """Whether it was answered to its end."""
        return self.error is None and not self.cut

    def as_row(self) -> dict[str, Json]:
        """A row of the report's table; `gaps_us` are all gaps in microseconds, in their order."""
        return {
            "request": self.number,
            "started_s": round(self.started_s, 4),
            "ttft_s": None if self.ttft_s is None else round(self.ttft_s, 6),
            "e2e_s": round(self.e2e_s, 6),
            "prompt_tokens": self.prompt_tokens,
            "output_tokens": self.output_tokens,
            "gaps_us": [round(gap * 1e6) for gap in self.gaps_s],
            "error": self.error,
            "cut": self.cut,
        }


@dataclass(frozen=True)
class Figures:
    """What the load showed. Times are in seconds, rates per second; None where no sample tells."""

    requests: int
    answered: int
    cut: int
    duration_s: float
    output_tokens_per_s: float
    requests_per_s: float
    prompt_tokens_mean: float
    ttft_p50_s: float | None
    ttft_p95_s: float | None
    ttft_p99_s: float | None
    itl_p50_s: float | None
    itl_p95_s: float | None
    itl_p99_s: float | None
    e2e_p50_s: float | None
    e2e_p95_s: float | None
    e2e_p99_s: float | None

    def as_json(self) -> dict[str, Json]:
        """The figures by name."""
        return asdict(self)

    def __str__(self) -> str:
        """One line for people."""
        return (
            f"{self.output_tokens_per_s:.1f} output tokens/s, {self.requests_per_s:.2f} requests/s; "
            f"TTFT {_ms(self.ttft_p50_s, self.ttft_p95_s, self.ttft_p99_s)}, "
            f"ITL {_ms(self.itl_p50_s, self.itl_p95_s, self.itl_p99_s)}, "
            f"E2E {_ms(self.e2e_p50_s, self.e2e_p95_s, self.e2e_p99_s)} ms (P50/P95/P99)"
        )


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The value below which `percent` of 100 lie, linear between samples; None without a value."""
    if not values:
        return None
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def of(samples: Sequence[Sample]) -> Figures:
    """The figures of a load. A request that was cut off counts for rates, TTFT and ITL; a failed one for none."""
    good = [sample for sample in samples if sample.error is None]
    whole = [sample for sample in good if sample.whole]
    ttft = [sample.ttft_s for sample in good if sample.ttft_s is not None]
    itl = [gap for sample in good for gap in sample.gaps_s]
    e2e = [sample.e2e_s for sample in whole]
    begin = min((sample.started_s for sample in good), default=0.0)
    duration = max((sample.started_s + sample.e2e_s for sample in good), default=0.0) - begin

    def spread(values: Sequence[float]) -> tuple[float | None, float | None, float | None]:
        found = [percentile(values, percent) for percent in (50, 95, 99)]
        p50, p95, p99 = (None if value is None else round(value, 6) for value in found)
        return p50, p95, p99

    return Figures(
        len(samples),
        len(whole),
        sum(sample.cut for sample in samples),
        round(duration, 4),
        round(sum(sample.output_tokens for sample in good) / duration, 3) if duration > 0 else 0.0,
        round(len(whole) / duration, 4) if duration > 0 else 0.0,
        round(sum(sample.prompt_tokens for sample in whole) / len(whole), 1) if whole else 0.0,
        *spread(ttft),
        *spread(itl),
        *spread(e2e),
    )


def _ms(*seconds: float | None) -> str:
    return "/".join("-" if value is None else f"{value * 1000:.0f}" for value in seconds)
