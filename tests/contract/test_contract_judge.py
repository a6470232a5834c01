"""The arithmetic of the contract's points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from kvstrata.contract import judge
from kvstrata.contract.client import Answer, Request
from kvstrata.contract.disruption import KILLED, RESTARTED, Disruption, back, judge_event
from kvstrata.contract.figures import Figures, Locality, Spread, followups, in_own_time, locality, ratio, spread
from kvstrata.contract.overhead import Overhead
from kvstrata.contract.residency import Batch
from kvstrata.contract.run import used_note
from kvstrata.contract.target import Worker


def answer(conversation: str, turn: int, worker: str | None, at: float = 0.0, cached: int = 0) -> Answer:
    request = Request(conversation, turn, "x" * 8 * (turn + 1), 1, stream=False)
    return Answer(request, at, at, at, at + 1, worker, 100, cached, 1)


def figures(landed: int, resident: int, requests: dict[str, int], hot: dict[str, int] | None = None) -> Figures:
    return Figures(
        requests=100,
        failed=0,
        retried=0,
        unknown=0,
        per_s=10.0,
        prompt_tokens=1000,
        cached_tokens=400,
        ttft_p50_s=None,
        ttft_p99_s=None,
        locality=Locality(resident + 10, resident, landed, landed),
        spread=Spread(requests, requests),
        hot=Spread(hot, hot) if hot else None,
        errors=(),
    )


def test_nine_of_ten_pass_over_all_rounds() -> None:
    rounds = [figures(80, 100, {"a": 1, "b": 1}), figures(100, 100, {"a": 1, "b": 1})]
    verdict = judge.locality("arm", rounds)
    assert verdict.ok
    assert verdict.value == pytest.approx(0.9)
    assert "20 of 220 evicted everywhere" in verdict.said


def test_too_few_resident_turns_are_not_judged_and_that_is_said() -> None:
    verdict = judge.locality("arm", [figures(5, 5, {"a": 1})])
    assert verdict.ok is None
    assert verdict.said.startswith("NOT JUDGED")


def test_the_spread_is_the_largest_over_the_mean_and_workers_without_work_count() -> None:
    assert ratio([3, 1, 2]) == pytest.approx(1.5)
    assert ratio([4, 0]) == pytest.approx(2.0)
    assert ratio([0, 0]) == 1.0
    found = spread([answer("c", 0, "a"), answer("d", 0, "a", cached=60)], ["a", "b"])
    assert found.requests == {"a": 2, "b": 0}
    assert found.computed == {"a": 140, "b": 0}


def test_a_pile_fails() -> None:
    assert judge.spread("arm", [figures(1, 1, {"a": 140, "b": 60})]).ok is False
    assert judge.spread("arm", [figures(1, 1, {"a": 130, "b": 70})]).ok is True


def test_a_pile_of_so_few_that_chance_can_make_it_is_not_judged_and_that_is_said() -> None:
    verdict = judge.spread("arm", [figures(1, 1, {"a": 60, "b": 20})])
    assert verdict.ok is None
    assert verdict.said.startswith("NOT JUDGED: 40 requests")


def test_followups_need_both_answers() -> None:
    answers = [answer("c", 0, "a"), answer("c", 1, "b"), answer("c", 3, "a"), answer("d", 1, "a")]
    assert [after.request.turn for _, after in followups(answers)] == [1]


def test_a_turn_lands_where_the_longest_part_of_its_prefix_is() -> None:
    def event(names: list[str], text: str) -> dict[str, object]:
        return {
            "type": "BlockStored",
            "block_hashes": names,
            "parent_block_hash": None,
            "token_ids": [ord(letter) for letter in text],
            "block_size": 4,
            "medium": "GPU",
        }

    def tokens(texts: object) -> list[list[int]]:
        assert isinstance(texts, list)
        return [[ord(letter) for letter in text] for text in texts]

    batches = [Batch(1, "a", [event(["1", "2"], "x" * 8)])]
    right = [answer("c", 0, "a", 0.5), answer("c", 1, "a", 2.0)]
    wrong = [answer("d", 0, "a", 0.5), answer("d", 1, "b", 2.0)]
    gone = [answer("e", 0, "a", 0.2), answer("e", 1, "a", 0.6)]
    found = locality([*right, *wrong, *gone], ["a", "b"], batches, tokens, 4)
    assert (found.followups, found.resident, found.landed, found.same_worker, found.evicted) == (3, 2, 1, 2, 1)


@pytest.mark.parametrize(
    ("windows", "expected"),
    [
        ([(5, 10, 10), (10, 19, 20)], 5),
        ([(5, 2, 10), (10, 19, 20)], 10),
        # One turn too many went elsewhere in the second, which the rest makes good: that is chance.
        ([(5, 10, 10), (10, 8, 10), (15, 10, 10)], 5),
        ([(5, 10, 10), (10, 2, 10), (15, 10, 10)], 15),
        ([(5, 10, 10), (10, 5, 10)], None),
        ([], None),
    ],
)
def test_locality_is_back_when_it_stays(windows: list[tuple[float, int, int]], expected: float | None) -> None:
    assert back(windows) == expected


@pytest.mark.parametrize(
    ("failed", "back_s", "ok"), [(0, 5.0, True), (1, 5.0, False), (0, 31.0, False), (0, None, False)]
)
def test_a_disruption_passes_without_a_failure_and_with_locality_back_in_time(
    failed: int, back_s: float | None, ok: bool
) -> None:
    found = Disruption("worker killed", 100, failed, 0, 3, back_s, ())
    assert judge.disruption("arm", [found]).ok is ok


def test_streams_that_were_under_way_on_a_killed_worker_have_a_verdict_of_their_own() -> None:
    killed = Disruption(KILLED, 100, 3, 3, 0, 5.0, (), lost_streams=3)
    restarted = Disruption(RESTARTED, 100, 0, 0, 2, 10.0, ())
    rest, lost = judge.disruption("arm", [killed, restarted]), judge.streams("arm", [killed, restarted])
    assert rest.ok
    assert "3 streams lost that were under way on it" in rest.said
    assert (lost.ok, lost.value) == (False, 3)
    saved = replace(killed, failed=0, cut=0, lost_streams=0, saved_streams=2)
    assert judge.streams("arm", [saved]).ok
    assert judge.streams("arm", [replace(saved, saved_streams=0)]).ok is None
    assert judge.streams("arm", [restarted]).ok is None
    # A stream that is cut when a router restarts is the router's to save.
    assert judge.disruption("arm", [replace(restarted, failed=1, cut=1)]).ok is False


def test_rounds_of_an_event_are_told_together_with_the_worst() -> None:
    rounds = [Disruption(KILLED, 100, 0, 0, 1, back, ()) for back in (5.0, 10.0, 20.0)]
    verdict = judge.disruption("arm", rounds)
    assert verdict.ok
    assert verdict.value == pytest.approx(20.0)
    assert "0 of 300 failed, 3 retried, locality back after 10 s, 20 s in the worst of 3" in verdict.said
    never = judge.disruption("arm", [*rounds, replace(rounds[0], back_s=None)])
    assert never.ok is False
    assert "locality NOT back in 1 of 4" in never.said


@dataclass
class TwoWorkers:
    """What judge_event must know of a target."""

    block_size: int = 4
    workers: tuple[Worker, ...] = (Worker("a", "", ""), Worker("b", "", ""))

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(map(ord, text)) for text in texts]


def test_lost_with_a_killed_worker_are_the_streams_that_were_under_way_then_and_no_others() -> None:
    def cut(sent: float, ended: float, *, stream: bool = True, first: bool = True) -> Answer:
        request = Request("c", 0, "x" * 8, 1, stream=stream)
        return Answer(request, sent, sent, sent if first else None, ended, error="cut: it hung up")

    def whole(sent: float, ended: float, worker: str) -> Answer:
        return replace(cut(sent, ended), error=None, worker=worker)

    answers = [
        whole(9.0, 11.0, "a"),
        whole(9.0, 11.0, "b"),
        whole(10.5, 11.0, "a"),
        cut(9.0, 10.1),
        cut(9.5, 10.2, first=False),
        cut(9.0, 10.1, stream=False),
        cut(20.0, 21.0),
    ]
    killed = judge_event(TwoWorkers(), KILLED, 10.0, 15.0, 30.0, answers, [], killed="a")
    assert (killed.failed, killed.cut, killed.lost_streams, killed.avoidable) == (4, 2, 1, 3)
    assert killed.saved_streams == 1
    assert judge_event(TwoWorkers(), RESTARTED, 10.0, 15.0, 30.0, answers, []).lost_streams == 0


def overhead(direct: float, routed: float, reached: float = 500.0) -> Overhead:
    return Overhead(500.0, reached, 4000, 0, 1.0, routed, 0.5, direct, 0.2, 0.1)


def test_the_overhead_is_the_median_of_the_rounds_and_a_rate_that_was_not_reached_fails() -> None:
    rounds = [overhead(1.0, 2.0), overhead(1.0, 9.0), overhead(1.0, 2.5)]
    verdict = judge.overhead("arm", rounds)
    assert verdict.ok
    assert verdict.value == pytest.approx(1.5)
    assert judge.overhead("arm", [overhead(1.0, 2.0, reached=300.0)]).ok is False
    assert judge.overhead("arm", []).ok is None
    lossy = judge.overhead("arm", [replace(rounds[0], failed=3), *rounds[1:]])
    assert lossy.ok is False
    assert lossy.said.startswith("3 requests failed")


def test_figures_of_programs_that_waited_for_a_cpu_are_not_judged() -> None:
    found = replace(figures(100, 100, {"a": 60, "b": 60}, {"a": 30, "b": 30}), waiting=0.3)
    for verdict in (
        judge.locality("arm", [found]),
        judge.spread("arm", [found]),
        judge.spread("arm", [found], judge.HOT),
    ):
        assert verdict.ok is None
        assert "NOT JUDGED: programs waited for a CPU for 30%" in verdict.said
    assert judge.locality("arm", [replace(found, waiting=0.05)]).ok


def test_what_a_load_took_of_the_machine_is_told_and_too_much_is_not_trusted() -> None:
    quiet = replace(figures(1, 1, {"a": 1}), cores=0.4, waiting=0.02)
    assert used_note([figures(1, 1, {"a": 1})]) is None
    assert "0.40 CPUs" in str(used_note([quiet]))
    assert "NOT TRUSTED" not in str(used_note([quiet]))
    assert "NOT TRUSTED, above 10%: 1 of 2 loads" in str(used_note([quiet, replace(quiet, waiting=0.2)]))


def test_a_slowed_clock_is_not_seen_in_figures() -> None:
    found = in_own_time(replace(figures(1, 1, {"a": 1}), per_s=2.0, ttft_p50_s=5.0), 10.0)
    assert (found.per_s, found.ttft_p50_s, found.ttft_p99_s) == (20.0, 0.5, None)
