from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from kvstrata.l2 import metrics
from kvstrata.l2.config import EndpointConfig, TierConfig
from kvstrata.l2.metrics import BOUNDS_S, Counters, Exporter, Histogram
from kvstrata.l2.tier import Tier

# -- histograms --------------------------------------------------------------------------------------


def test_an_empty_histogram_has_no_quantiles() -> None:
    histogram = Histogram()
    assert histogram.quantile(0.5) is None
    assert histogram.report() == {"count": 0}


def test_a_duration_on_a_bound_belongs_under_it() -> None:
    histogram = Histogram()
    for seconds in (0.0, BOUNDS_S[0], BOUNDS_S[0] * 1.01, BOUNDS_S[-1], BOUNDS_S[-1] * 1.01, 1e9):
        histogram.observe(seconds)
    assert histogram.buckets[:2] == [2, 1]
    assert histogram.buckets[-2:] == [1, 2]
    assert histogram.count == 6


@pytest.mark.parametrize(
    ("share", "bound"), [(0.0, 0.001), (0.5, 0.001), (0.9, 0.001), (0.901, 0.1), (0.99, 0.1), (0.991, 5.0), (1.0, 5.0)]
)
def test_a_quantile_is_the_bound_under_which_that_share_lies(share: float, bound: float) -> None:
    histogram = Histogram()
    for seconds, times in ((0.001, 900), (0.09, 90), (4.0, 10)):
        for _ in range(times):
            histogram.observe(seconds)
    assert histogram.quantile(share) == bound


@given(st.lists(st.floats(0, 20), min_size=1, max_size=60), st.floats(0.01, 1))
def test_a_quantile_is_the_least_bound_under_which_enough_of_the_durations_lie(
    durations: list[float], share: float
) -> None:
    histogram = Histogram()
    for seconds in durations:
        histogram.observe(seconds)
    enough = share * len(durations)
    least = next(
        bound for bound in (*BOUNDS_S, float("inf")) if sum(seconds <= bound for seconds in durations) >= enough
    )
    assert histogram.quantile(share) == least


def test_a_report_is_json_also_beyond_the_last_bound() -> None:
    histogram = Histogram()
    for _ in range(3):
        histogram.observe(60)
    report = json.loads(json.dumps(histogram.report(), allow_nan=False))
    assert report == {"count": 3, "mean_s": 60.0, "p50_s": None, "p95_s": None, "p99_s": None}


# -- counters ----------------------------------------------------------------------------------------


def test_counts_are_kept_by_name_and_none_is_lost_between_threads() -> None:
    counters = Counters()
    assert counters["nothing"] == 0
    assert counters.report() == {}

    def count() -> None:
        for _ in range(5000):
            counters.add("n")
            counters.add("bytes", 3)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.report() == {"n": 20_000, "bytes": 60_000}


# -- export ------------------------------------------------------------------------------------------

ENDPOINT = "127.0.0.1:1"


def parsed(registry: CollectorRegistry) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(samples: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> float:
    return samples[f"kvstrata_l2_{name}", frozenset(labels.items())]


def test_what_a_tier_knows_is_what_prometheus_reads() -> None:
    tier = Tier(TierConfig((EndpointConfig("127.0.0.1", 1, 12345),), "ns", tick_s=1000))
    try:
        registry = CollectorRegistry()
        registry.register(Exporter(tier.status, tier.histograms))
        endpoint = tier.endpoints[0]
        tier.counters.add("store_stored", 7)
        endpoint.counters.add("damaged", 2)
        endpoint.loaded_bytes, endpoint.stored_bytes = 100, 200
        tier.ledgers[0].used_bytes = 777
        for seconds in (0.0001, 0.003, 60.0):
            endpoint.histograms["server"].observe(seconds)
        samples = parsed(registry)
        assert value(samples, "events_total", event="store_stored") == 7
        assert value(samples, "endpoint_events_total", endpoint=ENDPOINT, event="damaged") == 2
        assert value(samples, "bytes_total", endpoint=ENDPOINT, direction="load") == 100
        assert value(samples, "bytes_total", endpoint=ENDPOINT, direction="store") == 200
        assert value(samples, "up", endpoint=ENDPOINT) == 1
        assert value(samples, "used_bytes", endpoint=ENDPOINT) == 777
        assert value(samples, "capacity_bytes", endpoint=ENDPOINT) == 12345
        assert value(samples, "last_ok_age_s", endpoint=ENDPOINT) == -1
        assert value(samples, "break_even") == 0
        buckets = {
            float(dict(labels)["le"]): count
            for (name, labels), count in samples.items()
            if name == "kvstrata_l2_latency_seconds_bucket" and ("stage", "server") in labels
        }
        assert buckets[0.0001] == 1
        assert buckets[0.0025] == 1
        assert buckets[0.005] == buckets[5.0] == 2
        assert buckets[float("inf")] == 3
        assert value(samples, "latency_seconds_count", endpoint=ENDPOINT, stage="server") == 3
        assert value(samples, "latency_seconds_sum", endpoint=ENDPOINT, stage="server") == pytest.approx(60.0031)
        endpoint.breaker.failed("gone", at_once=True)
        tier.break_even.cutting = True
        judged = tier.break_even
        judged.cut_chunks, judged.cut_bytes, judged.probes, judged.trials = 5, 500, 2, 1
        samples = parsed(registry)
        assert value(samples, "up", endpoint=ENDPOINT) == 0
        assert value(samples, "break_even") == 1
        cut = [value(samples, f"break_even_{name}_total") for name in ("cut_chunks", "cut_bytes", "probes", "trials")]
        assert cut == [5, 500, 2, 1]
    finally:
        tier.close()


def test_a_tier_publishes_only_while_it_lives_and_registering_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import prometheus_client

    registry = CollectorRegistry()
    monkeypatch.setattr(prometheus_client, "REGISTRY", registry)
    config = TierConfig((EndpointConfig("127.0.0.1", 1, 1),), "ns", tick_s=1000)

    def refuse() -> Any:
        raise AssertionError("asked while registering")

    exporter = Exporter(refuse, refuse)
    exporter.register()
    exporter.unregister()
    exporter.unregister()
    tier = Tier(config, export=True)
    assert b"kvstrata_l2_capacity_bytes" in generate_latest(registry)
    tier.close()
    assert b"kvstrata" not in generate_latest(registry)
    quiet = Tier(config)
    assert b"kvstrata" not in generate_latest(registry)
    quiet.close()


def test_without_prometheus_client_nothing_is_published_and_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "prometheus_client", None)
    exporter = Exporter(dict, dict)
    exporter.register()
    exporter.unregister()


def test_every_metric_has_the_prefix_that_dashboards_look_for() -> None:
    assert metrics.PREFIX == "kvstrata_l2_"
    tier = Tier(TierConfig((EndpointConfig("127.0.0.1", 1, 1),), "ns", tick_s=1000))
    try:
        families = list(Exporter(tier.status, tier.histograms).collect())
        assert all(family.name.startswith(metrics.PREFIX) for family in families)
        assert len({family.name for family in families}) == len(families)
    finally:
        tier.close()
