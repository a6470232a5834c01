"""What the adapter counts: cheap counters and histograms, and their export to Prometheus.

LMCache's HTTP server publishes prometheus_client's default registry at /metrics, so what is registered there appears
beside LMCache's own metrics.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds of the histograms' buckets, in seconds; one more bucket is open."""


class Histogram:
    """Durations in seconds. Single observations may be lost in a race between threads; they are not locked."""

    def __init__(self) -> None:
        """Start empty."""
        self.buckets = [0] * (len(BOUNDS_S) + 1)
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.buckets[bisect_left(BOUNDS_S, seconds)] += 1
        self.sum_s += seconds

    @property
    def count(self) -> int:
        """How many were counted."""
        return sum(self.buckets)

    def quantile(self, share: float) -> float | None:
        """Return the upper bound of the bucket in which that share of the durations ends, or None without any."""
        wanted = share * self.count
        seen = 0
        for bound, count in zip((*BOUNDS_S, float("inf")), self.buckets):
            seen += count
            if count and seen >= wanted:
                return bound
        return None

    def report(self) -> dict[str, Any]:
        """Return count, mean and percentiles in seconds (upper bounds of buckets; null beyond the last bound)."""
        count = self.count
        if not count:
            return {"count": 0}
        percentiles = {f"p{round(share * 100)}_s": _finite(self.quantile(share)) for share in (0.5, 0.95, 0.99)}
        return {"count": count, "mean_s": round(self.sum_s / count, 6), **percentiles}


def _finite(value: float | None) -> float | None:
    return None if value is None or value == float("inf") else value


class Counters:
    """Named counts; safe for many threads."""

    def __init__(self) -> None:
        """Start at zero."""
        self._lock = threading.Lock()
        self._counts: dict[str, int] = defaultdict(int)

    def add(self, name: str, count: int = 1) -> None:
        """Add to a count."""
        with self._lock:
            self._counts[name] += count

    def __getitem__(self, name: str) -> int:
        """Return a count; 0 for a name never counted."""
        return self._counts.get(name, 0)

    def report(self) -> dict[str, int]:
        """Return all counts by name."""
        with self._lock:
            return dict(self._counts)


PREFIX = "kvstrata_l2_"


class Exporter:
    """A collector for prometheus_client that reads a status when it is asked, and holds nothing itself."""

    def __init__(self, status: Callable[[], Mapping[str, Any]], histograms: Callable[[], Mapping[str, Any]]) -> None:
        """Export what `status` (Tier.status) and `histograms` (endpoint -> stage -> Histogram) return."""
        self._status = status
        self._histograms = histograms
        self._registry: Any = None

    def register(self) -> None:
        """Register with the default registry; without prometheus_client nothing happens."""
        try:
            from prometheus_client import REGISTRY
        except ImportError:
            return
        REGISTRY.register(self)
        self._registry = REGISTRY

    def unregister(self) -> None:
        """Take the collector out of the registry again."""
        if self._registry is not None:
            self._registry.unregister(self)
            self._registry = None

    def describe(self) -> Iterable[Any]:
        """Return nothing: registering must not ask the stores."""
        return []

    def collect(self) -> Iterable[Any]:
        """Return the metric families."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        status = self._status()
        events = CounterMetricFamily(f"{PREFIX}events", "What happened to chunks and requests.", labels=["event"])
        for name, count in status["counters"].items():
            events.add_metric([name], count)
        yield events
        gauge = GaugeMetricFamily(f"{PREFIX}break_even", "1 while lookups are cut by min_load_gbps.")
        gauge.add_metric([], float(status["break_even"]["cutting"]))
        yield gauge
        for field, text in (
            ("cut_chunks", "Chunks that were found and answered as misses, for computing them is quicker."),
            ("cut_bytes", "Bytes of these chunks."),
            ("probes", "Lookups that loaded some all the same, to measure whether loading is still slower."),
            ("trials", "Lookups that passed to give a store its first rate; the others wait for that."),
            ("unasked", "Lookups that ended in misses without a store being asked, for nothing it has would pass."),
        ):
            cut = CounterMetricFamily(f"{PREFIX}break_even_{field}", text)
            cut.add_metric([], status["break_even"][field])
            yield cut
        endpoints = status["endpoints"]
        for field, text in (
            ("up", "1 while requests go to the endpoint (its circuit breaker is closed)."),
            ("used_bytes", "Bytes of the chunks on the endpoint, from its own index."),
            ("capacity_bytes", "Most that the endpoint may hold."),
            ("last_ok_age_s", "Seconds since the last good round trip; -1 before the first."),
            ("load_bytes_per_s", "Measured rate of loads, smoothed."),
            ("queued_bytes", "Bytes that wait to be stored."),
        ):
            family = GaugeMetricFamily(PREFIX + field, text, labels=["endpoint"])
            for name, endpoint in endpoints.items():
                family.add_metric([name], float(endpoint[field]))
            yield family
        moved = CounterMetricFamily(f"{PREFIX}bytes", "Payload moved.", labels=["endpoint", "direction"])
        faults = CounterMetricFamily(f"{PREFIX}endpoint_events", "Per endpoint.", labels=["endpoint", "event"])
        for name, endpoint in endpoints.items():
            moved.add_metric([name, "load"], endpoint["loaded_bytes"])
            moved.add_metric([name, "store"], endpoint["stored_bytes"])
            for event, count in endpoint["counters"].items():
                faults.add_metric([name, event], count)
        yield moved
        yield faults
        latency = HistogramMetricFamily(f"{PREFIX}latency_seconds", "By stage.", labels=["endpoint", "stage"])
        for name, stages in self._histograms().items():
            for stage, histogram in stages.items():
                total, rows = 0, []
                for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), list(histogram.buckets)):
                    total += count
                    rows.append((bound, total))
                latency.add_metric([name, stage], rows, histogram.sum_s)
        yield latency
