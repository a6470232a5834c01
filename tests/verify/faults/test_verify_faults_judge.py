"""The verdict on requests that met a fault."""

from __future__ import annotations

import pytest

from kvstrata.verify.check import Json, UnableError, UnmetError
from kvstrata.verify.faults import judge, plan
from kvstrata.verify.faults.judge import Window
from kvstrata.verify.faults.plan import Fault
from kvstrata.verify.faults.requests import Attempt, Sample

STORE = Fault("faults.store", "node2", ("kvrocks@d0.service",), False, "node1", plan.STORE)
ENGINE = Fault("faults.engine", "node2", ("vllm@0.service",), False, "node1", plan.ENGINE, loses_in_flight=True)
# Stopping began at 10 s, was done at 12 s, and all was well at 30 s.
WINDOW = Window(10, 12, 30)


def sample(started_s: float, *errors: str | None, seconds: float = 1.0) -> Sample:
    attempts = [Attempt(started_s + number * 2, seconds, error) for number, error in enumerate(errors or (None,))]
    return Sample(round(started_s), 0, tuple(attempts))


def verdict(fault: Fault, *samples: Sample) -> str:
    return judge.verdict(fault, samples, WINDOW, {})


def test_requests_that_were_all_answered_pass_with_their_times() -> None:
    data: dict[str, Json] = {}
    samples = [sample(11, seconds=float(seconds)) for seconds in range(1, 11)]
    seen = judge.verdict(STORE, samples, WINDOW, data)
    assert seen == "10 of 10 requests answered, P50 5.0 s, P95 10.0 s, longest 10.0 s"
    assert data == {
        "requests": 10,
        "answered": 10,
        "sent_again": 0,
        "not_carried": 0,
        "p50_s": 5.0,
        "p95_s": 10.0,
        "max_s": 10.0,
        "fault_s": 20,
    }


def test_only_requests_that_met_the_fault_count() -> None:
    outside = [sample(2, "early", "early"), sample(31, "late", "late")]
    assert verdict(STORE, *outside, sample(15)).startswith("1 of 1 requests answered")


def test_a_request_that_began_before_and_ended_in_it_counts() -> None:
    with pytest.raises(UnmetError, match="reset"):
        verdict(STORE, sample(9.5, "reset", "reset"))


def test_a_request_that_was_given_up_fails_every_fault() -> None:
    for fault in (STORE, ENGINE):
        with pytest.raises(UnmetError, match=r"1 of 2 requests answered.*given up: reset \(2 times\)"):
            verdict(fault, sample(9.5, "reset", "reset"), sample(13))


def test_a_store_may_cost_no_request_even_its_first_sending() -> None:
    with pytest.raises(UnmetError, match="1 only when sent again: 503"):
        verdict(STORE, sample(11, "503", None), sample(13))


def test_an_engine_may_cost_what_it_was_computing_once() -> None:
    seen = verdict(ENGINE, sample(9.5, "reset", None), sample(13))
    assert seen.endswith("1 under way on it failed, and were answered when sent again")


def test_a_request_sent_after_the_engine_was_gone_may_not_fail() -> None:
    with pytest.raises(UnmetError, match="1 failed at first though they were sent after it was gone: refused"):
        verdict(ENGINE, sample(12.5, "refused", None), sample(13))


def test_no_requests_at_all_prove_nothing() -> None:
    with pytest.raises(UnmetError, match="no request ended meanwhile"):
        verdict(STORE)


def lost_on_the_way(*carried: bool) -> Sample:
    attempts = [
        Attempt(15 + number, 1, None if carried[number] else "SSH", carried[number]) for number in range(len(carried))
    ]
    return Sample(1, 0, tuple(attempts))


def test_a_sending_that_did_not_reach_the_site_is_no_failure_of_it() -> None:
    data: dict[str, Json] = {}
    samples = [lost_on_the_way(False, True), lost_on_the_way(False, False), *(sample(15) for _ in range(8))]
    seen = judge.verdict(STORE, samples, WINDOW, data)
    assert seen == "9 of 9 requests answered, P50 1.0 s, P95 2.0 s, longest 2.0 s; 1 did not get to the site"
    assert (data["not_carried"], data["sent_again"]) == (1, 0)


def test_where_many_do_not_reach_the_site_nothing_is_told_of_it() -> None:
    with pytest.raises(UnableError, match="1 of 3 requests did not get to the site: SSH"):
        verdict(STORE, lost_on_the_way(False, False), sample(15), sample(16))


def test_before_any_fault_no_sending_may_fail() -> None:
    with pytest.raises(UnmetError, match="1 of 2 requests failed at first: 503"):
        judge.undisturbed([sample(1, "503", None), sample(2)], {})
    assert judge.undisturbed([sample(1)], {}) == "1 requests answered, P50 1.0 s, P95 1.0 s, longest 1.0 s"


def test_percentiles_are_values_that_were_measured() -> None:
    found = judge.times([sample(11, seconds=seconds) for seconds in (4.0, 1.0, 3.0, 2.0)])
    assert found == {"p50_s": 2.0, "p95_s": 4.0, "max_s": 4.0}
