"""The simulated replica: caches, scheduling, and the curve over users."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstrata.bench.workloads import multi_turn
from kvstrata.paths import PROJECT
from kvstrata.plan import simulate
from kvstrata.plan.caches import BLOCK, Found, Hbm, Offload, Prefix
from kvstrata.plan.curve import curve, sets
from kvstrata.plan.engine import REQUEST_OVERHEAD_S
from kvstrata.plan.figures import Basis, Figure
from kvstrata.plan.held import held
from kvstrata.plan.line import Line
from kvstrata.plan.reading import BadInputError
from kvstrata.plan.simulate import Outcome, Setup, Simulation
from kvstrata.plan.tiers import Tier, TierName
from kvstrata.plan.wear import wear_of, writable_gbps
from kvstrata.plan.workload import Range, Workload, conversations
from tests.plan.samples import GB, dram, engine, node, seen, ssd

ONE = Workload("one", messages=Range(6, 6), prefix=Range(1000, 1000), turn_in=Range(100, 100), turn_out=Range(160, 160))


def setup(tiers: tuple[Tier, ...] = (), kv_cache_gib: float | None = 12.0, cut: float = 0.0) -> Setup:
    return Setup(engine(kv_cache_gib=kv_cache_gib), tiers, 1, 1, 256, cut)


def ran(made: Setup, users: int, workload: Workload | None = None, seed: int = 1, think_s: float = 0.0) -> Outcome:
    return Simulation(made, workload or Workload(), users, think_s, seed).run(3 * users, users)


def test_conversations_are_those_of_the_bench() -> None:
    # bench.workloads has every turn of 400 conversations in one list; only order and answers' lengths are lost there.
    held = multi_turn(1)
    source = conversations(Workload(), 1)
    mine = [next(source) for _ in range(400)]
    assert sum(len(turns) for turns in mine) == pytest.approx(len(held), rel=0.05)
    prompts = sum(turn.prompt for turns in mine for turn in turns)
    assert prompts == pytest.approx(sum(request.prompt_tokens for request in held), rel=0.08)


def test_the_mean_prompt_is_that_of_many_conversations() -> None:
    source = conversations(Workload(), 5)
    prompts = [turn.prompt for _ in range(3000) for turn in next(source)]
    assert sum(prompts) / len(prompts) == pytest.approx(Workload().mean_prompt, rel=0.03)
    assert max(prompts) < Workload().longest


def test_a_single_user_finds_its_conversation_in_hbm() -> None:
    simulation = Simulation(setup(), ONE, 1, 0.0, 1)
    outcome = simulation.run(1, 0, to_the_end=True)
    # Three turns; each finds what it and its answer left, in whole blocks.
    assert outcome.requests == 3
    assert outcome.hbm_tokens == sum(tokens // BLOCK * BLOCK for tokens in (1260, 1520))
    assert outcome.prompt_tokens == 1100 + 1360 + 1620


def test_the_first_turn_takes_as_long_as_its_prefill() -> None:
    outcome = Simulation(setup(), ONE, 1, 0.0, 1).run(1, 0, to_the_end=True)
    assert outcome.ttft_s[0] == pytest.approx(engine().prefill_s(1100), rel=0.01)


def test_a_hit_in_dram_takes_its_load_and_the_rest() -> None:
    # HBM for one conversation alone; two users take turns, so each finds its own only in DRAM.
    made = setup((dram(100, gbps := 2.0),), kv_cache_gib=1820 * 131072 / 2**30)
    outcome = Simulation(made, ONE, 2, 0.0, 1).run(2, 0, to_the_end=True)
    assert outcome.dram_tokens > 0
    loading = 1280 * 131072 / (gbps * 1e9)
    rest = engine().compute_s(1360, 1280)
    assert max(outcome.ttft_s) > loading + rest + REQUEST_OVERHEAD_S.value


def test_a_seed_gives_the_same_run_and_another_one_another() -> None:
    made = setup((dram(60),))
    first, again, other = ran(made, 40), ran(made, 40), ran(made, 40, seed=2)
    assert first == again
    assert first != other


def test_every_tier_adds_hits_where_the_one_above_is_small() -> None:
    behind = dram(18)
    alone, with_dram, with_both = (ran(setup(tiers), 60) for tiers in ((), (behind,), (behind, ssd(14, behind))))
    assert alone.hit_rate + 0.05 < with_dram.hit_rate < with_both.hit_rate - 0.05
    assert with_both.ssd_tokens > 0
    assert with_both.written_bytes > 0
    assert with_dram.written_bytes == 0


def test_a_slow_tier_makes_serving_slower_than_none_and_cutting_prevents_that() -> None:
    behind = dram(6)
    slow = (behind, ssd(0.28, behind))
    # With LMCache's own connector, for which what HBM has waits for the drives as well.
    always = replace(setup(slow), recheck_s=0.0)
    alone, hurt, cut = ran(setup(), 60), ran(always, 60), ran(replace(always, min_load_gbps=5.2), 60)
    assert hurt.output_per_s < 0.6 * alone.output_per_s
    assert cut.output_per_s > 0.95 * alone.output_per_s


def test_users_who_think_ask_less() -> None:
    busy, idle = ran(setup(), 20), ran(setup(), 20, think_s=30)
    assert idle.output_per_s < 0.5 * busy.output_per_s


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), rate=st.floats(0.5, 20), more=st.floats(2, 20))
def test_a_faster_tier_serves_no_less(seed: int, rate: float, more: float) -> None:
    behind = dram(6)
    slow, fast = (ran(setup((behind, ssd(gbps, behind))), 30, seed=seed).output_per_s for gbps in (rate, rate * more))
    # Another order of arrivals moves hits a little.
    assert fast > 0.93 * slow


@given(
    sizes=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 300), st.integers(0, 80)), max_size=60),
    block=st.sampled_from((16, 128)),
)
def test_hbm_never_holds_more_than_there_is(sizes: list[tuple[int, int, int]], block: int) -> None:
    hbm, running = Hbm(640, block), dict[int, int]()
    for conversation, tokens, grown in sizes:
        if conversation in running:
            held = running.pop(conversation)
            hbm.end(conversation, held + grown, held)
        elif hbm.admit(conversation, tokens) is not None:
            running[conversation] = tokens
        held = sum(hbm.held(one) for one in range(6))
        assert held + sum(running.values()) <= 640


def test_the_oldest_loses_its_tail_first() -> None:
    hbm = Hbm(640)
    for conversation in (1, 2):
        assert hbm.admit(conversation, 320) == 0
        hbm.end(conversation, 320, 320)
    assert hbm.admit(3, 32) == 0
    assert (hbm.held(1), hbm.held(2)) == (288, 320)


def test_what_an_answer_took_beside_what_it_began_with_is_taken_from_the_oldest() -> None:
    hbm = Hbm(640)
    assert hbm.admit(1, 320) == 0
    hbm.end(1, 320, 320)
    assert hbm.admit(2, 288) == 0
    hbm.end(2, 352, 288)
    assert (hbm.held(1), hbm.held(2)) == (288, 352)


def test_what_runs_holds_whole_blocks() -> None:
    hbm = Hbm(384, 128)
    assert hbm.admit(1, 129) == 0
    assert hbm.admit(2, 129) is None
    assert hbm.admit(2, 128) == 0


def test_a_prefix_is_kept_in_whole_blocks() -> None:
    hbm = Hbm(1024, 128)
    hbm.admit(1, 300)
    hbm.end(1, 300, 300)
    assert hbm.held(1) == 256


def test_a_second_pass_begins_when_the_first_has_ended_and_counts_alone() -> None:
    once = replace(ONE, conversations=2, active=2)
    cold, warm = held(setup(), once), held(setup(), once, passes=2)
    assert cold.requests == warm.requests == 6
    assert cold.prompt_tokens == warm.prompt_tokens
    # HBM holds both conversations, answers included, so in the second pass even first turns find their prompts.
    assert [share == 0 for share in cold.cached].count(True) == 2
    assert min(warm.cached) > 0.9
    assert max(warm.ttft_s) < max(cold.ttft_s)
    assert cold.median_where(0.0, 0.0) == pytest.approx(max(cold.ttft_s), rel=0.5)
    assert warm.median_where(0.0, 0.0) is None


def test_running_sequences_are_not_pushed_out() -> None:
    hbm = Hbm(100)
    assert hbm.admit(1, 90) == 0
    assert hbm.admit(2, 20) is None


def test_a_hit_is_a_contiguous_prefix_and_leaves_one_token_to_compute() -> None:
    offload = Offload(16, 100, 0)
    offload.take(1, 64, 0)
    assert offload.look_up(1, 64).behind(0).dram == 48
    assert offload.look_up(1, 65).behind(0).dram == 64
    assert offload.look_up(1, 65).behind(40).dram == 24
    assert offload.look_up(2, 65).behind(0).cached == 0


def test_what_dram_lost_comes_from_the_drives() -> None:
    offload = Offload(16, 10, 1000)
    for conversation in range(20):
        offload.take(conversation, 64, 0)
    found = offload.look_up(0, 65)
    assert (found.behind(0).dram, found.behind(0).ssd) == (0, 64)
    assert offload.written_chunks == 80


@pytest.mark.parametrize(("recheck_s", "think_s", "asked"), [(0.0, 0.0, 2), (30.0, 0.0, 0), (30.0, 1000.0, 2)])
def test_what_hbm_has_waits_for_no_drive_unless_lmcache_is_asked(recheck_s: float, think_s: float, asked: int) -> None:
    # DRAM for one chunk, and a drive that needs 0.3 s for each of the others.
    small = dram(0.04, 10.0)
    made = replace(setup((small, ssd(0.1, small))), recheck_s=recheck_s)
    outcome = Simulation(made, ONE, 1, think_s, 1).run(1, 0, to_the_end=True)
    assert outcome.hbm_tokens > 2000
    # The first turn is asked about, and nothing is there yet.
    assert [ttft > 0.5 for ttft in outcome.ttft_s] == [False, *[True] * asked, *[False] * (2 - asked)]


def test_a_last_turn_that_nobody_had_waits_for_no_drive() -> None:
    # Each turn fills one chunk that HBM lacks then.
    behind, load, late = dram(0.04, 10.0), replace(ONE, turn_in=Range(450, 450)), []
    for chunks in (1, 2):
        made = replace(setup((behind, ssd(0.1, behind))), ask_chunks=chunks)
        late.append(sum(ttft > 0.5 for ttft in Simulation(made, load, 1, 0.0, 1).run(1, 0, to_the_end=True).ttft_s))
    assert late[0] > late[1] == 0


@pytest.mark.parametrize("prefix", [Range(800, 1200), Range(10, 100)])
def test_everything_is_stored_where_lmcache_was_not_asked(prefix: Range) -> None:
    # Answers are not offered until they are part of a prompt, and many of them end a chunk.
    behind, load = dram(100, 10.0), Workload("few", 20, 5, prefix=prefix)
    asked, not_asked = (replace(setup((behind, ssd(1.0, behind))), recheck_s=recheck_s) for recheck_s in (0.0, 30.0))
    both = [held(made, load, seed=3).written_bytes for made in (asked, not_asked)]
    assert both[0] == both[1] > 0


def test_lmcache_is_told_what_the_role_tells_it() -> None:
    flags = yaml.safe_load((PROJECT / "roles" / "lmcache" / "vars" / "main.yml").read_text())["_lmcache_flags"]
    made = setup(())
    assert flags["--l2-prefetch-policy"] == ("retain" if made.retain else "default")
    assert flags["--l2-prefetch-max-in-flight"] == made.lookups
    engines = yaml.safe_load((PROJECT / "roles" / "vllm" / "defaults" / "main.yml").read_text())
    assert engines["vllm_lmcache_recheck_s"] == made.recheck_s
    assert engines["vllm_lmcache_ask_chunks"] == made.ask_chunks


@pytest.mark.parametrize(("retain", "to_load"), [(True, 0), (False, 64)])
def test_dram_keeps_what_the_drives_gave_if_lmcache_is_told_to(retain: bool, to_load: int) -> None:
    offload = Offload(16, 10, 1000, retain)
    for conversation in range(20):
        offload.take(conversation, 64, 0)
    first = offload.look_up(0, 65)
    assert first.to_load == 64
    offload.loaded(0, first)
    assert offload.look_up(0, 65).to_load == to_load


def test_of_more_than_dram_holds_it_keeps_the_beginning_of_what_the_drives_gave() -> None:
    offload = Offload(16, 4, 1000)
    for conversation in range(2):
        offload.take(conversation, 64, 0)
    prefix = offload.look_up(0, 65)
    assert prefix.in_dram == (False, False, False, False)
    offload.loaded(0, prefix)
    assert offload.look_up(0, 65).in_dram == (True, True, True, False)


def test_the_drives_are_asked_for_what_hbm_has_too() -> None:
    prefix = Prefix((True, False, True), 16)
    assert prefix.to_load == 16
    assert (prefix.behind(32), prefix.reach) == (Found(32, 16, 0), 48)
    assert (prefix.without_drives().behind(0), prefix.without_drives().reach) == (Found(0, 16, 0), 16)


def test_loads_are_delivered_one_after_another_and_what_memory_serves_waits_for_a_place() -> None:
    line: Line[str] = Line(2)
    for name, seconds in (("a", 1.0), ("b", 2.0), ("memory", 0.0)):
        line.join(0.0, seconds, name)
    assert line.backlog_s(0.5) == 2.5
    assert list(line.over(0.5)) == []
    assert line.next_s == 1.0
    # Its place is free when the first is over, and it needs no more than that.
    assert list(line.over(1.0)) == ["a", "memory"]
    line.join(1.0, 0.0, "more")
    assert list(line.over(1.0)) == ["more"]
    assert list(line.over(3.0)) == ["b"]
    assert line.next_s is None


def test_what_waits_begins_when_a_place_is_free_however_late_one_asks() -> None:
    line: Line[str] = Line(1)
    for name in ("a", "b"):
        line.join(0.0, 1.0, name)
    assert line.backlog_s(0.5) == 1.5
    assert list(line.over(5.0)) == ["a", "b"]


def test_more_lookups_at_once_keep_drams_hits_from_waiting_for_the_drives() -> None:
    behind = dram(32)
    made, load = replace(setup((behind, ssd(1.9, behind))), recheck_s=0.0), Workload("twice", 110, 50)
    few, many = (held(replace(made, lookups=lookups), load, passes=2).quantile(0.5) for lookups in (2, 32))
    assert many < 0.9 * few


def test_copies_into_hbm_take_their_time_from_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    made = setup((dram(60),))
    slower = ran(made, 60).output_per_s
    monkeypatch.setattr(simulate, "COPY_GBPS", Figure(1e6, Basis.ASSUMED, "at once"))
    assert 1.03 * slower < ran(made, 60).output_per_s < 1.25 * slower


def test_the_curve_has_a_point_for_each_number_of_users_and_think_time() -> None:
    made = replace(setup((dram(6),)), fleet=4)
    points = curve(made, Workload(), (4, 42), (0.0, 10.0), 1, 0.0)
    assert [(point.users, point.think_s) for point in points] == [(4, 0), (42, 0), (4, 10), (42, 10)]
    assert points[0].outcomes.keys() == {"hbm", "+dram"}
    assert points[0].speedup("hbm") == points[0].ttft_ratio("hbm") == 1


def test_sets_of_tiers_build_on_each_other() -> None:
    behind = dram(6)
    assert list(sets((behind, ssd(1, behind)), 4.0)) == ["hbm", "+dram", "+ssd", "+ssd, cut"]
    assert list(sets((behind,), 0.0)) == ["hbm", "+dram"]


def test_hbm_that_holds_no_conversation_is_refused() -> None:
    with pytest.raises(BadInputError, match=r"tokens of KV in HBM is 819; allowed: at least"):
        curve(setup(kv_cache_gib=0.1), Workload(), (1,), (0.0,), 1, 0.0)


def test_quantiles_are_by_nearest_rank() -> None:
    values = list(range(100))
    random.Random(1).shuffle(values)  # noqa: S311 - a test's order
    outcome = Outcome(ttft_s=[float(value) for value in values])
    assert (outcome.quantile(0.5), outcome.quantile(0.95), outcome.quantile(1.0)) == (49, 94, 99)
    assert Outcome().quantile(0.5) == 0


def test_wear_is_what_was_worked_out_by_hand() -> None:
    # 0.8 GB/s over 8 drives: 0.1 GB/s * 1.25 * 86,400 s = 10.8 TB a day on 3.84 TB; rated 7,008 TB.
    found = wear_of(node().drives, 0.8e9)
    assert len(found) == 8
    assert found[0].tb_per_day == pytest.approx(10.8)
    assert found[0].dwpd == pytest.approx(10.8 / 3.84)
    assert found[0].years == pytest.approx(7008 / 10.8 / 365.25)


def test_drives_without_a_rating_and_idle_ones_have_no_end() -> None:
    unrated = tuple(replace(drive, tbw=None) for drive in node().drives)
    assert {wear.years for wear in wear_of(unrated, 1e9)} == {None}
    assert {wear.years for wear in wear_of(node().drives, 0.0)} == {None}


def test_stores_take_no_more_than_drives_and_processor_write() -> None:
    slow = tuple(replace(drive, write_gbps=seen(0.1)) for drive in node().drives)
    assert writable_gbps(replace(node(), drives=slow)) == pytest.approx(8 * 0.1 * 0.82)
    assert writable_gbps(replace(node(), cpu_cores=seen(6.48))) == pytest.approx(1 / GB)


def test_a_tier_that_is_not_there_takes_no_time() -> None:
    assert setup().seconds_per_byte(TierName.SSD) == 0
    assert setup().chunks(TierName.DRAM) == 0


def test_ranks_copy_their_parts_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(ranks: int, gbps: float) -> float:
        monkeypatch.setattr(simulate, "COPY_GBPS", Figure(gbps, Basis.ASSUMED, "a test"))
        made = Setup(engine(ranks=ranks, kv_cache_gib=4.0 / ranks), (dram(60),), 1, 1, 256)
        # One user, who comes back to what the conversations in between took from HBM.
        return held(made, Workload("few", 40, 1), passes=2).seconds

    one, two = (seconds(ranks, 1.0) - seconds(ranks, 1e6) for ranks in (1, 2))
    assert two == pytest.approx(one / 2, rel=0.1)
