"""What a phase is worth, in words."""

from __future__ import annotations

from dataclasses import replace

from kvstrata.bench.serving import judging
from kvstrata.bench.serving.model import ClientHealth, Phase, RequestSample, TierTokens

SAMPLES = tuple(RequestSample(f"c{n}", 0, 0.0, 0.0, n / 100, (0.01,), 1.0, 100, 10) for n in range(1, 101))
PHASE = Phase("none", 1, "poc", "cold", "now", 10.0, SAMPLES, tiers=TierTokens(1, 2, 3, 4), notes=("look",))


def test_a_line_has_rates_percentiles_tiers_and_notes() -> None:
    assert judging.summary(PHASE) == (
        "100 of 100 requests in 10.0 s; 100.0 output tokens/s; TTFT P50 0.500 s, P95 0.950 s; "
        "prompt tokens: HBM 1, L1 2, L2 3, computed 4; look"
    )


def test_of_two_requests_the_slower_one_is_p95() -> None:
    assert "P50 0.010 s, P95 0.020 s" in judging.summary(replace(PHASE, samples=SAMPLES[:2]))


def test_without_an_answer_there_are_no_percentiles() -> None:
    assert judging.summary(replace(PHASE, samples=(), tiers=None, notes=())) == (
        "0 of 0 requests in 10.0 s; 0.0 output tokens/s"
    )


def test_failed_requests_are_told_with_the_first_reason() -> None:
    failed = replace(SAMPLES[0], error="status 500")
    assert judging.failed(SAMPLES, 60) is None
    assert judging.failed([failed, SAMPLES[1]], 60) == "1 of 2 requests failed, the first: status 500"
    assert not judging.useless(replace(PHASE, samples=(failed, SAMPLES[1])))
    assert judging.useless(replace(PHASE, samples=(failed,)))


def test_a_load_that_was_cut_off_is_useless() -> None:
    late = replace(SAMPLES[0], error="deadline of 60 s")
    assert judging.failed([late, SAMPLES[1]], 60) == "1 of 2 requests failed, 1 of them cut off after 60 s"
    assert judging.useless(replace(PHASE, samples=(late, SAMPLES[1])))


def machine(all_s: float, own_s: float, engine_s: float) -> dict[str, dict[str, float]]:
    return {"machine": {"cpu_s": all_s, "own_cpu_s": own_s}, "process:vllm:0": {"cpu_s": engine_s}}


def test_others_on_the_machine_are_told_and_our_own_engines_are_not_others() -> None:
    before = machine(0, 0, 0)
    assert judging.shared(before, machine(20, 2, 18), 10.0, 2) is None
    assert judging.shared(before, machine(20, 2, 8), 10.0, 2) == "THE MACHINE WAS SHARED: others used 1.0 of 2 cores"
    assert judging.shared({}, {}, 10.0, 2) is None


def test_a_client_that_measures_itself_is_told() -> None:
    assert judging.saturated(ClientHealth(lag_p99_s=0.001, cpu_share=0.5)) is None
    assert judging.saturated(ClientHealth(lag_p99_s=0.05, cpu_share=0.9)) == (
        "THE CLIENT WAS SATURATED: its event loop was late by 50 ms (P99), it used 90% of a core"
    )
