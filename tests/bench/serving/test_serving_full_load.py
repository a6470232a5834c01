"""While all conversations of a closed loop were under way: when that was, and what came in it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kvstrata.bench.serving import figures, report, report_html, report_markdown
from kvstrata.bench.serving.full_load import full_until_s
from kvstrata.bench.serving.model import Json, Phase, RequestSample
from kvstrata.bench.serving.record import Record
from kvstrata.bench.serving.report_cells import HEADS, cells
from tests.bench.serving import recorded

HEAD = "while all were under way: tokens/s"


def request(conversation: str, turn: int, start: float, ttft: float, *gaps: float) -> RequestSample:
    return RequestSample(conversation, turn, start, start, ttft, gaps, ttft + sum(gaps), 100, 1 + len(gaps))


# Two at a time. `a` thinks from 1.5 to 4 s, `b` ends at 4.5, and `c` begins at 5, which ends the full load.
SAMPLES = (
    request("a", 0, 0.0, 0.5, 0.5, 0.5),  # tokens at 0.5, 1.0, 1.5
    request("a", 1, 4.0, 0.25, 0.5, 1.25),  # 4.25, 4.75, and 6.0: too late
    request("b", 0, 0.0, 1.0, 2.0, 1.5),  # 1.0, 3.0, 4.5
    request("c", 0, 5.0, 2.0, 1.0, 2.0),  # 7.0, 8.0, 10.0: too late
)


def phase(samples: tuple[RequestSample, ...] = SAMPLES, configuration: str = "none", turn: int = 1) -> Phase:
    return Phase(configuration, turn, "poc", "cold", "2026-11-27T09:00:00+00:00", 10.0, samples)


def slower(of: Phase, factor: float) -> Phase:
    """The phase with every time multiplied."""

    def stretched(each: RequestSample) -> RequestSample:
        times = [each.started_s, each.ttft_s or 0.0, *each.itl_s]
        return request(each.conversation, each.turn, *(factor * time for time in times))

    return replace(of, duration_s=of.duration_s * factor, samples=tuple(map(stretched, of.samples)))


def record() -> Record:
    """`none` in two rounds, the second twice as slow, and `dram+ssd` twice as fast in both."""
    made = recorded.record()
    made.plan["workloads"] = [{"name": "poc", "active": 2}]
    made.phases = [
        slower(phase(configuration=name, turn=turn), turn * factor)
        for turn in (1, 2)
        for name, factor in (("none", 1.0), ("dram+ssd", 0.5))
    ]
    return made


def test_tokens_count_that_came_before_the_last_conversation_began() -> None:
    found = figures.of(phase(), 1, active=2)
    assert full_until_s(phase(), 2) == 5.0
    # Three of a's first answer, two of its second, three of b's; the whole has 12 in 10 s.
    assert found.full_output_per_s == pytest.approx(8 / 5.0)
    assert found.output_per_s == pytest.approx(1.2)


def test_ttft_is_that_of_requests_sent_before_the_last_conversation_began() -> None:
    found = figures.of(phase(), 1, active=2)
    assert (found.full_ttft_p95, found.ttft_p95) == (1.0, 2.0)


@pytest.mark.parametrize("active", [3, 4, None], ids=["as many", "fewer", "open loop"])
def test_there_is_no_such_time_where_no_conversation_waits_for_another(active: int | None) -> None:
    found = figures.of(phase(), 1, active)
    assert (found.full_output_per_s, found.full_ttft_p95) == (None, None)
    assert found.output_per_s == pytest.approx(1.2)


def test_a_failed_request_counts_for_nothing_but_its_conversation_had_begun() -> None:
    broken = tuple(replace(each, error="refused") if each.key in (("b", 0), ("c", 0)) else each for each in SAMPLES)
    found = figures.of(phase(broken), 1, active=2)
    assert found.full_output_per_s == pytest.approx(5 / 5.0)
    assert found.full_ttft_p95 == 0.5


@pytest.mark.parametrize("at", [10.0, 12.0], ids=["at the end", "at a deadline after it"])
def test_a_conversation_that_never_began_leaves_the_loop_full_to_the_end(at: float) -> None:
    unsent = RequestSample("c", 0, at, at, None, (), 0.0, 0, 0, error="not sent: the deadline passed")
    found = figures.of(phase((*SAMPLES[:3], unsent)), 1, active=2)
    assert found.full_output_per_s == pytest.approx(9 / 10.0)


def test_pieces_of_several_tokens_count_with_all_of_them() -> None:
    pieces = tuple(replace(each, output_tokens=6) for each in SAMPLES)
    assert figures.of(phase(pieces), 1, active=2).full_output_per_s == pytest.approx(2 * 8 / 5.0)


def test_a_phase_in_which_all_failed_at_once_was_never_full() -> None:
    failed = tuple(replace(each, started_s=0.0, ttft_s=None, itl_s=(), error="refused") for each in SAMPLES)
    assert full_until_s(phase(failed), 2) is None
    assert figures.of(phase(failed), 1, active=2).full_output_per_s is None


def test_ratios_are_within_the_rounds_and_in_every_form() -> None:
    made = report.make(record())
    base, tiered = made.rows
    assert base.ratios["full_output_per_s"] == 1.0
    assert tiered.ratios["full_output_per_s"] == pytest.approx(2.0)
    assert tiered.ratios["full_ttft_p95"] == pytest.approx(0.5)
    # 1.6 and 0.8 tokens/s, and twice that.
    told = [dict(zip(HEADS, cells(made, row), strict=True))[HEAD] for row in made.rows]
    assert told == ["1.2 (1.00x)", "2.4 (2.00x)"]
    for text in (report_markdown.render(made), report_html.render(made)):
        assert HEAD in text
        assert "2.4 (2.00x)" in text


@pytest.mark.parametrize("plan", [{}, {"workloads": [{"name": "poc"}]}, {"workloads": [{"name": "x", "active": 2}]}])
def test_a_file_that_does_not_tell_how_many_are_active_has_its_report(plan: dict[str, Json]) -> None:
    told = record()
    del told.plan["workloads"]
    told.plan |= plan
    made = report.make(told)
    assert [dict(zip(HEADS, cells(made, row), strict=True))[HEAD] for row in made.rows] == ["-", "-"]
    assert "full_output_per_s" not in made.rows[1].ratios
