"""From samples to figures, by hand, and what is judged of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kvstrata.cluster import ThroughputSettings, parse
from kvstrata.verify.check import NotCheckedError, UnableError, UnmetError
from kvstrata.verify.throughput import baseline, figures, judge
from kvstrata.verify.throughput.baseline import Baseline, Conditions
from kvstrata.verify.throughput.figures import Sample
from tests.verify.fakes import documents


def sample(number: int = 0, started: float = 0.0, ttft: float = 0.5, gaps: tuple[float, ...] = (0.1, 0.2)) -> Sample:
    return Sample(number, started, ttft, ttft + sum(gaps), 100, len(gaps) + 1, gaps)


# -- figures ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([], 50, None),
        ([3.0], 99, 3.0),
        ([1.0, 2.0], 50, 1.5),
        ([4.0, 1.0, 3.0, 2.0], 50, 2.5),
        ([float(value) for value in range(1, 102)], 95, 96.0),
        ([0.0, 10.0], 99, 9.9),
    ],
)
def test_percentiles_are_linear_between_samples(values: list[float], percent: float, expected: float | None) -> None:
    found = figures.percentile(values, percent)
    assert found == (None if expected is None else pytest.approx(expected))


def test_rates_are_over_the_time_from_the_first_start_to_the_last_end() -> None:
    found = figures.of([sample(0, started=1.0), sample(1, started=3.2, ttft=0.3, gaps=(0.1, 0.3, 0.1))])
    assert found.duration_s == pytest.approx(3.0)
    assert found.output_tokens_per_s == pytest.approx(7 / 3, abs=1e-3)
    assert found.requests_per_s == pytest.approx(2 / 3, abs=1e-3)
    assert found.prompt_tokens_mean == 100
    assert (found.ttft_p50_s, found.itl_p50_s, found.e2e_p50_s) == (0.4, 0.1, 0.8)


def test_gaps_of_all_requests_are_one_distribution() -> None:
    one, other = sample(gaps=(0.1,) * 98), sample(gaps=(0.1, 9.0))
    assert figures.of([one, other]).itl_p99_s == pytest.approx(0.1 + 0.01 * 8.9, abs=1e-6)


def test_a_request_that_was_cut_off_counts_for_rates_and_not_for_whole_answers() -> None:
    found = figures.of([sample(), replace(sample(1), cut=True, gaps_s=(0.1, 0.1), output_tokens=3, e2e_s=0.7)])
    assert (found.requests, found.answered, found.cut) == (2, 1, 1)
    assert found.output_tokens_per_s == pytest.approx(6 / 0.8, abs=1e-3)
    assert found.e2e_p99_s == pytest.approx(0.8)


def test_a_failed_request_counts_for_nothing() -> None:
    failed = replace(sample(1, started=90.0, ttft=50.0), error="answered 503")
    assert figures.of([sample(), failed]) == replace(figures.of([sample()]), requests=2)


def test_no_samples_are_no_figures() -> None:
    found = figures.of([])
    assert (found.output_tokens_per_s, found.ttft_p50_s, found.duration_s) == (0.0, None, 0.0)
    assert "TTFT -/-/-" in str(found)


def test_every_figure_can_be_made_again_from_the_rows_of_the_report() -> None:
    samples = [sample(number, number * 0.1, 0.2 + number / 100, (0.01 * number, 0.05)) for number in range(1, 20)]
    again = []
    for row in (one.as_row() for one in samples):
        raw: Any = row
        gaps = tuple(gap / 1e6 for gap in raw["gaps_us"])
        again.append(
            Sample(
                raw["request"],
                raw["started_s"],
                raw["ttft_s"],
                raw["e2e_s"],
                raw["prompt_tokens"],
                raw["output_tokens"],
                gaps,
            )
        )
    assert figures.of(again) == figures.of(samples)


def test_one_line_has_every_figure() -> None:
    assert str(figures.of([sample()])) == (
        "3.8 output tokens/s, 1.25 requests/s; TTFT 500/500/500, ITL 150/195/199, E2E 800/800/800 ms (P50/P95/P99)"
    )


# -- requests --------------------------------------------------------------------------------------


def test_all_answered_pass() -> None:
    assert judge.requests([sample(0), sample(1)], 2, 60, False) == "2 of 2 answered to their end"


def test_failed_requests_fail_and_each_reason_is_told_once_with_its_number() -> None:
    broken = [replace(sample(number), error="answered 503") for number in range(3)]
    with pytest.raises(UnmetError, match="1 of 4 answered to their end; 3 failed: answered 503"):
        judge.requests([*broken, sample(3)], 4, 60, False)


def test_a_load_that_did_not_fit_into_its_time_passes_while_most_of_it_was_answered() -> None:
    seen = judge.requests([sample(0), sample(1), replace(sample(2), cut=True)], 4, 60, True)
    assert seen == "2 of 4 answered to their end; 1 were cut off and 1 not begun when 60 s were over"


def test_a_load_that_was_hardly_answered_in_its_time_is_no_measurement() -> None:
    with pytest.raises(UnableError, match=r"only 1 of 4 answered .* too few to measure"):
        judge.requests([sample(0), replace(sample(1), cut=True)], 4, 60, True)
    with pytest.raises(NotCheckedError, match=r"^how fast the site is is not proven: only 1 of 4"):
        judge.requests([sample(0), replace(sample(1), cut=True)], 4, 60, False)


# -- bounds ----------------------------------------------------------------------------------------


def test_only_the_bounds_that_are_set_are_judged() -> None:
    assert judge.bounds(ThroughputSettings()) == []
    set_ = ThroughputSettings(min_output_tokens_per_s=100.0, max_ttft_p95_s=2.0, max_itl_p99_s=0.0)
    assert [bound.figure for bound in judge.bounds(set_)] == ["output_tokens_per_s", "ttft_p95_s", "itl_p99_s"]


@pytest.mark.parametrize(
    ("settings", "passes", "expected"),
    [
        (ThroughputSettings(min_output_tokens_per_s=3.75), True, "at least 3.75 tokens/s"),
        (ThroughputSettings(min_output_tokens_per_s=3.8), False, "at least 3.8 tokens/s"),
        (ThroughputSettings(max_ttft_p95_s=0.5), True, "at most 0.5 s"),
        (ThroughputSettings(max_ttft_p95_s=0.49), False, "at most 0.49 s"),
        (ThroughputSettings(max_itl_p50_s=0.15), True, "at most 0.15 s"),
        (ThroughputSettings(max_itl_p50_s=0.1), False, "at most 0.1 s"),
    ],
)
def test_a_figure_beyond_its_bound_fails(settings: ThroughputSettings, passes: bool, expected: str) -> None:
    (bound,) = judge.bounds(settings)
    assert str(bound) == expected
    found = figures.of([sample()])
    if passes:
        judge.bound(found, bound)
        return
    with pytest.raises(UnmetError):
        judge.bound(found, bound)


def test_a_bound_that_is_missed_by_a_busy_sender_is_no_failure_of_the_site() -> None:
    (bound,) = judge.bounds(ThroughputSettings(max_ttft_p50_s=0.1))
    found = figures.of([sample()])
    with pytest.raises(UnmetError):
        judge.bound(found, bound, judge.BUSY_SHARE)
    with pytest.raises(UnableError, match=r"was busy itself \(97% of a core\)"):
        judge.bound(found, bound, 0.97)
    with pytest.raises(UnableError, match="was busy itself"):
        judge.against(replace(found, ttft_p50_s=9.0), found, 0.25, 0.97)
    assert judge.sender(0.1) == ""


def test_a_bound_that_no_sample_tells_of_cannot_be_judged() -> None:
    (bound,) = judge.bounds(ThroughputSettings(max_itl_p50_s=1.0))
    with pytest.raises(UnableError, match="no sample tells itl_p50_s"):
        judge.bound(figures.of([sample(gaps=())]), bound)


# -- baseline --------------------------------------------------------------------------------------

BEFORE = replace(figures.of([sample()]), output_tokens_per_s=100.0)


@pytest.mark.parametrize(
    ("change", "worse"),
    [
        ({}, ""),
        ({"output_tokens_per_s": 80.0}, ""),
        ({"output_tokens_per_s": 79.9}, "output_tokens_per_s 79.9, was 100"),
        ({"output_tokens_per_s": 500.0, "ttft_p50_s": 0.001}, ""),
        ({"ttft_p95_s": 0.62}, ""),
        ({"ttft_p95_s": 0.63}, "ttft_p95_s 0.63, was 0.5"),
        ({"itl_p50_s": 0.3}, "itl_p50_s 0.3, was 0.15"),
        ({"ttft_p99_s": 50.0, "e2e_p50_s": 50.0}, ""),
    ],
)
def test_a_figure_worse_than_the_baselines_by_more_than_the_tolerance_fails(
    change: dict[str, float], worse: str
) -> None:
    now = replace(BEFORE, **change)  # type: ignore[arg-type]
    if not worse:
        judge.against(now, BEFORE, 0.25)
        return
    with pytest.raises(UnmetError, match=f"worse by more than 25%: {worse}$"):
        judge.against(now, BEFORE, 0.25)


def test_a_baseline_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    conditions = Conditions.of(parse(documents.cluster()))
    kept = Baseline("2026-11-27T10:00:00+00:00", conditions, {"kvstrata": "1"}, BEFORE)
    assert baseline.load(tmp_path) is None
    baseline.save(tmp_path, kept)
    assert baseline.load(tmp_path) == kept
    assert [path.name for path in tmp_path.iterdir()] == [baseline.FILE]


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 9}', '{"schema": 1, "conditions": {}}'])
def test_a_broken_baseline_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / baseline.FILE).write_text(text)
    assert baseline.load(tmp_path) is None


def test_conditions_say_how_they_differ() -> None:
    one = replace(Conditions.of(parse(documents.cluster())), replicas=2, concurrency=8)
    assert one.other_than(one) == ""
    other = replace(one, replicas=3, concurrency=4)
    assert other.other_than(one) == "replicas 3, was 2, concurrency 4, was 8"


def test_prompts_leave_room_for_the_answer() -> None:
    settings = ThroughputSettings(prompt_tokens=4000, output_tokens=100)
    assert baseline.prompt_tokens(settings, 8192) == 4000
    assert baseline.prompt_tokens(settings, 1024) == 1024 - 100 - 64
