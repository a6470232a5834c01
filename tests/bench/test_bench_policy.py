"""The simulation of write policies: tiny traces worked out by hand, the workloads' shape, and the command."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from kvstrata.bench.cli import app
from kvstrata.bench.policy import (
    CANDIDATES,
    L1,
    L1_EVICTED_SHARE,
    L1_WATERMARK,
    Counts,
    MinPosition,
    drive_writes_per_day,
    replay,
)
from kvstrata.bench.policy_study import Parameters, Workload, row_of, run
from kvstrata.bench.workloads import Request, multi_turn, skewed
from kvstrata.l2.policy import make_policy
from kvstrata.paths import PROJECT

# An L1 of 4 chunks evicts one as soon as it holds 4, more than nine tenths: it keeps 3.
L1_OF_3 = 4
ROOMY = 1000


def prompt(chunks: str) -> Request:
    """One chunk for each letter; 10 tokens each."""
    return Request(tuple(letter.encode() * 16 for letter in chunks), 10 * len(chunks))


def trace(*prompts: str) -> list[Request]:
    return [prompt(chunks) for chunks in prompts]


def test_a_prompt_that_l1_keeps_is_hit_there_and_offered_once() -> None:
    counts = replay(trace("ab", "ab", "abc"), make_policy("all"), ROOMY, ROOMY)
    assert counts == Counts(requests=3, prompt_tokens=70, l1_hits=4, offered=3, written=3)


def test_what_l1_evicted_is_hit_in_l2_then_in_l1_and_not_offered_again() -> None:
    # L1 holds b, a, then c pushes b (the prompt's end goes first), f pushes a: for "ab" only L2 answers, once.
    counts = replay(trace("ab", "cd", "ef", "ab", "ab"), make_policy("all"), L1_OF_3, ROOMY)
    assert counts == Counts(requests=5, prompt_tokens=100, l1_hits=2, l2_hits=2, offered=6, written=6)


def test_what_l2_gave_pushes_out_the_oldest_of_l1() -> None:
    # L1 holds d, f, e; a comes back from L2 for d, which is hit in L2 alone.
    assert replay(trace("a", "b", "d", "ef", "a", "d"), make_policy("all"), L1_OF_3, ROOMY).l2_hits == 2
    assert replay(trace("a", "b", "d", "ef", "a", "f"), make_policy("all"), L1_OF_3, ROOMY).l2_hits == 1


def test_what_l2_gave_leaves_l1_like_any_other_chunk() -> None:
    # a comes back from L2; e, f and g push it out again.
    counts = replay(trace("a", "bcd", "a", "efg", "a"), make_policy("all"), L1_OF_3, ROOMY)
    assert (counts.l1_hits, counts.l2_hits, counts.offered) == (0, 2, 7)


def test_of_what_l2_gave_the_end_of_the_prompt_leaves_l1_first() -> None:
    # "abc" comes back from L2; d pushes c out.
    counts = replay(trace("abc", "xyz", "abc", "d", "abc"), make_policy("all"), L1_OF_3, ROOMY)
    assert (counts.l1_hits, counts.l2_hits) == (2, 3 + 1)


def test_of_more_than_l1_holds_it_keeps_the_beginning_of_what_l2_gave() -> None:
    counts = replay(trace("abcd", "xyz", "abcd", "abc"), make_policy("all"), L1_OF_3, ROOMY)
    assert (counts.l1_hits, counts.l2_hits) == (3, 4)


def test_what_a_prompt_hits_in_l1_is_not_pushed_out_by_what_it_computes() -> None:
    # a is the oldest until "ad" hits it: d pushes b out.
    assert replay(trace("a", "b", "c", "ad", "a"), MinPosition(99), L1_OF_3, ROOMY).l1_hits == 2


def test_l1_evicts_the_end_of_a_prompt_before_its_beginning() -> None:
    # "abcd" enters backwards, and its fourth chunk (a) evicts d.
    counts = replay(trace("abcd", "abcd"), MinPosition(99), L1_OF_3, ROOMY)
    assert (counts.l1_hits, counts.offered, counts.written) == (3, 4 + 1, 0)


def test_a_prompt_that_grew_loses_its_end_before_its_beginning() -> None:
    # b is computed after a is hit, and yet leaves first: d pushes b out.
    assert replay(trace("a", "ab", "c", "d", "ab"), MinPosition(99), L1_OF_3, ROOMY).l1_hits == 2


def test_l1_drops_a_tenth_of_its_chunks_once_it_is_nine_tenths_full() -> None:
    l1 = L1(100)
    names = [bytes([number]) * 16 for number in range(90)]
    for name in names[:89]:
        l1.add(name)
    assert all(name in l1 for name in names[:89])
    l1.add(names[89])
    assert [name in l1 for name in names] == [False] * 9 + [True] * 81


def test_l1_is_what_the_role_makes_of_it() -> None:
    flags = yaml.safe_load((PROJECT / "roles" / "lmcache" / "vars" / "main.yml").read_text())["_lmcache_flags"]
    assert flags["--eviction-policy"] == "LRU"
    assert flags["--eviction-trigger-watermark"] == L1_WATERMARK
    assert flags["--eviction-ratio"] == L1_EVICTED_SHARE
    assert flags["--l2-prefetch-policy"] == "retain"


def test_a_hit_makes_a_chunk_young_in_l1() -> None:
    # b is the oldest when d comes.
    assert replay(trace("a", "b", "a", "c", "d", "a"), MinPosition(99), L1_OF_3, ROOMY).l1_hits == 2


def test_a_chunk_that_l1_holds_behind_a_gap_is_not_offered_again() -> None:
    # b was used by itself, so a is the oldest and goes: of the second "ab" only a enters L1.
    assert replay(trace("ab", "b", "cd", "ab"), MinPosition(99), L1_OF_3, ROOMY).offered == 5


def test_a_hit_ends_at_the_first_chunk_that_no_tier_holds() -> None:
    # L2 holds b and c, a is gone from L1: all of "abc" is computed again. L2 has two of the three offered.
    counts = replay(trace("abc", "def", "abc"), MinPosition(1), L1_OF_3, ROOMY)
    assert (counts.l1_hits, counts.l2_hits) == (0, 0)
    assert (counts.offered, counts.written, counts.present) == (9, 4, 2)


def test_second_use_pays_for_a_reused_chunk_with_one_more_computation() -> None:
    sequence = trace("ab", "cde", "ab", "fgh", "ab")
    written_at_once = replay(sequence, make_policy("all"), L1_OF_3, ROOMY)
    at_second_use = replay(sequence, make_policy("second_use"), L1_OF_3, ROOMY)
    assert (written_at_once.written, written_at_once.l2_hits, written_at_once.offered) == (8, 4, 8)
    assert (at_second_use.written, at_second_use.l2_hits, at_second_use.offered) == (2, 2, 10)


def test_second_use_writes_no_prompt_that_comes_once() -> None:
    counts = replay(trace("ab", "cd", "ef", "gh"), make_policy("second_use"), L1_OF_3, ROOMY)
    assert (counts.offered, counts.written) == (8, 0)


def test_a_policy_that_waits_for_a_full_l2_fills_it_first() -> None:
    counts = replay(trace("ab", "cd", "ef"), make_policy("second_use", only_when_full=True), L1_OF_3, 3)
    assert (counts.offered, counts.written, counts.evicted) == (6, 3, 0)


def test_l2_evicts_what_was_looked_up_longest_ago() -> None:
    # L2 holds a, b, c; a is looked up again; d pushes b out.
    counts = replay(trace("a", "b", "c", "a", "d", "a", "b"), make_policy("all"), 1, 3)
    assert (counts.l2_hits, counts.written, counts.evicted) == (2, 5, 2)


def test_a_prompt_does_not_push_its_own_beginning_out_of_l2() -> None:
    # a is the oldest of a full L2 when "ad" comes: d pushes b out.
    assert replay(trace("a", "b", "c", "ad", "a"), make_policy("all"), 1, 3).l2_hits == 2


def test_l2_evicts_the_end_of_a_prompt_before_its_beginning() -> None:
    assert replay(trace("abc", "d", "abc"), make_policy("all"), 1, 3).l2_hits == 2


def test_a_full_l2_keeps_what_is_used_more_often() -> None:
    policy = make_policy("tinylfu", min_uses=1)
    counts = replay(trace("a", "a", "b", "a"), policy, 1, 1, against_victim=True)
    assert (counts.l2_hits, counts.written, counts.evicted) == (2, 1, 0)


def test_drive_writes_per_day_by_hand() -> None:
    # 1 GB for each of 2 requests, 1 request a second, twice amplified: 172.8 TB a day, on 1.728 TB.
    assert drive_writes_per_day(2e9, 2, 1.0, 2.0, 1.728e12) == pytest.approx(100)


def test_a_row_by_hand() -> None:
    parameters = Parameters(
        chunk_tokens=8, kib_per_token=1024, requests_per_s=1, drive_gb=8.589934592 * 86.4, write_amplification=1
    )
    counts = Counts(requests=1000, prompt_tokens=800, l1_hits=10, l2_hits=40, offered=256, written=128)
    row = row_of(counts, Counts(requests=1000, prompt_tokens=800, l1_hits=75, written=256), parameters)
    assert (row.offered_gib, row.written_gib, row.written_to_all) == (2.0, 1.0, 0.5)
    assert row.drive_writes_per_day == pytest.approx(0.125)
    assert (row.l1_hit_tokens, row.l2_hit_tokens) == (80, 320)
    assert (row.hit_rate, row.hit_rate_minus_all) == (0.5, -0.25)
    assert row.read_to_written == 40 / 128


def test_the_multi_turn_trace_has_the_settings_of_the_proof_of_concept() -> None:
    requests = multi_turn(7)
    conversations: dict[bytes, list[Request]] = {}
    for request in requests:
        conversations.setdefault(request.cids[0], []).append(request)
    assert len(conversations) == 400
    turns = [len(conversation) for conversation in conversations.values()]
    assert (min(turns), max(turns)) == (1, 14)
    # An odd number of messages is made even by one more: 27 and 28 give 14 requests, 2 alone gives one.
    assert turns.count(14) > turns.count(1)
    for conversation in conversations.values():
        assert 850 <= conversation[0].prompt_tokens <= 1350
        for before, after in pairwise(conversation):
            assert after.cids[: len(before.cids)] == before.cids
            assert 150 <= after.prompt_tokens - before.prompt_tokens <= 380
        assert all(len(request.cids) == request.prompt_tokens // 256 for request in conversation)


def test_fifty_conversations_take_turns() -> None:
    requests = multi_turn(7)
    assert len({request.cids[0] for request in requests[:50]}) == 50
    # Whoever is not over after the first turn speaks again, in the same order, before anybody's third turn.
    second = [request.cids[0] for request in requests[50:100]]
    assert len(set(second)) == 50
    assert [first for first in second if first in {r.cids[0] for r in requests[:50]}] == [
        request.cids[0] for request in requests[:50] if request.cids[0] in second
    ]


def test_the_second_pass_holds_the_same_conversations() -> None:
    requests = multi_turn(7, conversations=60, passes=2)
    half = len(requests) // 2
    assert requests[:half] == requests[half:] == multi_turn(7, conversations=60)


def test_the_skewed_trace_shares_documents_and_nothing_else() -> None:
    requests = skewed(7, requests=2000)
    by_first: dict[bytes, list[Request]] = {}
    for request in requests:
        by_first.setdefault(request.cids[0], []).append(request)
    shared = sorted((same for same in by_first.values() if len(same) > 1), key=len, reverse=True)
    asked = sum(len(same) for same in shared)
    assert 700 < asked < 1000
    # Zipf over 500: the most popular document has 1 / H(500) = 14.7% of the questions.
    assert 0.10 < len(shared[0]) / 1000 < 0.20
    first, second = shared[0][:2]
    common = sum(a == b for a, b in zip(first.cids, second.cids, strict=False))
    assert len(first.cids) - common <= 1


@pytest.mark.parametrize("workload", Workload)
def test_a_seed_gives_one_trace_and_another_seed_another(workload: Workload) -> None:
    assert workload.trace(3, 256) == workload.trace(3, 256) != workload.trace(4, 256)


def test_the_comparison_begins_with_writing_all() -> None:
    assert CANDIDATES[0].label == "all"


def test_runs_are_deterministic_and_give_medians_over_the_seeds() -> None:
    parameters = Parameters(l1_gib=(6.0,))
    once, again = (list(run(parameters, [Workload.MULTI_TURN])) for _ in range(2))
    assert once == again
    assert [result.policy for result in once] == [candidate.label for candidate in CANDIDATES]
    for result in once:
        written = sorted(sample.written_gib for sample in result.samples)
        assert len(written) == 3
        assert result.median.written_gib == written[1]
    assert once[0].median.written_to_all == 1.0
    assert once[0].median.hit_rate_minus_all == 0.0


def test_the_command_prints_a_table_and_writes_the_document(tmp_path: Path) -> None:
    document = tmp_path / "policy.json"
    options = ["--workload", "multi_turn", "--l1-gib", "6", "--repeats", "1", "--seed", "5", "--json", str(document)]
    result = CliRunner().invoke(app, ["policy", *options])
    assert result.exit_code == 0, result.output
    for candidate in CANDIDATES:
        assert candidate.label in result.output
    found = json.loads(document.read_text())
    assert found["schema"] == "kvstrata.bench.policy/1"
    assert found["parameters"]["seed"] == 5
    assert found["parameters"]["l1_gib"] == [6.0]
    assert set(found["host"]) == {"name", "machine", "kernel", "cores"}
    assert set(found["versions"]) == {"kvstrata", "python"}
    assert [row["policy"] for row in found["results"]] == [candidate.label for candidate in CANDIDATES]
    assert all(len(row["samples"]) == 1 for row in found["results"])
