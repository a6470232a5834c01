"""What an inventory sets for verification and benchmarks: limits, throughput, prices. Plain frozen data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """How far from perfect a healthy site may be (`kvstrata_verify_limits`)."""

    clock_skew_s: float = 0.5
    """Seconds between a node's clock and the controller's."""
    drive_share: float = 0.5
    """Least read rate of a drive, as a share of its recorded baseline."""
    retransmit_share: float = 0.01
    """Most TCP segments sent again, as a share of those sent."""
    certificate_days: float = 14.0
    """Days that a certificate must still be valid."""
    drive_free_share: float = 0.03
    """Least free space of a drive's file system, as a share of its size."""
    store_over_share: float = 0.01
    """Most that chunks may take above a store's capacity, as a share of it."""
    xid_hours: float = 24.0
    """How far back the kernel's log is searched for errors of GPUs, in hours."""
    recover_s: float = 180.0
    """Seconds in which a site must have recovered from a fault of `verify --faults`."""


@dataclass(frozen=True)
class ThroughputSettings:
    """The load of the throughput layer and what it must reach (`kvstrata_verify_throughput`).

    Lengths are in tokens, times in seconds, rates in tokens/s. A bound of None is not judged.
    """

    enabled: bool = True
    concurrency: int = 8
    requests: int = 32
    prompt_tokens: int = 512
    output_tokens: int = 64
    max_s: float = 60.0
    tolerance: float = 0.25
    """By which share a figure may be worse than the stored baseline's."""
    min_output_tokens_per_s: float | None = None
    max_ttft_p50_s: float | None = None
    max_ttft_p95_s: float | None = None
    max_ttft_p99_s: float | None = None
    max_itl_p50_s: float | None = None
    max_itl_p95_s: float | None = None
    max_itl_p99_s: float | None = None


@dataclass(frozen=True)
class Prices:
    """What an hour of one GPU costs, in `currency` (`kvstrata_prices`)."""

    gpu_hour: float
    currency: str
