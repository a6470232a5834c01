"""What an engine counted since its start that an operator should know of, and whether it ever asked its cache."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from kvstrata.verify.check import Json
from kvstrata.verify.prometheus import Samples

ASKED = "vllm:external_prefix_cache_queries_total"


@dataclass(frozen=True)
class Counts:
    """Since the engine's start; `kv_usage_share` of 1 means that its KV cache is full, `waiting` requests queue now."""

    finished: int
    aborted: int
    errors: int
    preemptions: int
    corrupted: int
    waiting: int
    kv_usage_share: float

    def as_json(self) -> dict[str, Json]:
        """The counts by name."""
        return asdict(self)

    def __str__(self) -> str:
        """One line for people."""
        return (
            f"{self.finished} requests since its start, {self.aborted} aborted, {self.errors} ended in an error; "
            f"{self.preemptions} preemptions; KV cache {self.kv_usage_share:.0%} used"
        )


def read(metrics: Samples) -> Counts:
    """The counts of a scrape; what the engine does not count is 0."""

    def ended(reason: str) -> int:
        return round(metrics.total("vllm:request_success_total", finished_reason=reason))

    return Counts(
        finished=round(metrics.total("vllm:request_success_total")),
        aborted=ended("abort"),
        errors=ended("error"),
        preemptions=round(metrics.total("vllm:num_preemptions_total")),
        corrupted=round(metrics.total("vllm:corrupted_requests_total")),
        waiting=round(metrics.total("vllm:num_requests_waiting")),
        kv_usage_share=round(metrics.total("vllm:kv_cache_usage_perc"), 4),
    )


def asked_cache(metrics: Samples) -> float | None:
    """Tokens that the engine asked its connector for since its start; None where it has no such counter."""
    return metrics.total(ASKED) if metrics.has(ASKED) else None
