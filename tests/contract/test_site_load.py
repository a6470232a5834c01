"""The contract's loads on a site of fakes: what they find is what the engines did."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kvstrata.bench.errors import BenchError
from kvstrata.contract import site_load
from kvstrata.contract.load import Load, hold
from kvstrata.contract.run import SHARED, UNIQUE, Plan, Run
from kvstrata.contract.site import SiteTarget
from kvstrata.contract.site_counters import since
from kvstrata.contract.site_load import Sources, loads, pace, shape_for
from kvstrata.contract.workload import Conversations, Shape
from tests.contract.site_fakes import BLOCK, DeployedSite


def held(site: DeployedSite, folder: Path, seconds: float = 4.0) -> tuple[Run, list[Sources]]:
    run, sources = Run(), list[Sources]()
    with SiteTarget(site.site, folder) as target:
        arms = (target.deployed, target.compared()[0])
        plan = Plan(arms=arms, rounds=1, seconds=seconds, per_s=40.0, disruption_s=0)
        loads(target, plan, run, sources, site.said.append)
    assert run.failures == []
    return run, sources


@pytest.fixture
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_load, "Shape", lambda hot_share, **_: _shape(hot_share))


def _shape(hot_share: float) -> Shape:
    return Shape(first=200, more=60, output=4, turns=6, short_think_s=0.05, hot_share=hot_share, hot_tokens=160)


@pytest.mark.usefixtures("_soon")
def test_events_tell_who_answered_and_where_prefixes_were(tmp_path: Path) -> None:
    with DeployedSite(tmp_path) as site:
        run, sources = held(site, tmp_path)
    (sticky,) = run.of("cache_aware (deployed)", UNIQUE)
    (scattered,) = run.of("round_robin", UNIQUE)
    assert sticky.failed == scattered.failed == 0
    assert sticky.unknown == scattered.unknown == 0
    assert sticky.locality is not None
    assert scattered.locality is not None
    assert sticky.locality.resident > 20
    assert sticky.locality.share == 1.0
    assert scattered.locality.share is not None
    assert scattered.locality.share < 0.85
    assert sticky.hit_rate > 1.05 * scattered.hit_rate
    assert sum(sticky.spread.requests.values()) == sticky.requests
    assert scattered.spread.requests_ratio == pytest.approx(1.0, abs=0.05)
    # Others are held without a shared prefix alone.
    assert run.of("cache_aware (deployed)", SHARED)[0].hot is not None
    assert not run.of("round_robin", SHARED)
    assert {one.foreign for one in sources} == {0}
    assert not any("missing" in note for note in run.notes)


@pytest.mark.usefixtures("_soon")
def test_small_caches_evict_and_what_is_gone_has_no_right_place(tmp_path: Path) -> None:
    with DeployedSite(tmp_path, blocks=60) as site:
        run, sources = held(site, tmp_path, seconds=3)
    (sticky,) = run.of("cache_aware (deployed)", UNIQUE)
    assert sticky.locality is not None
    assert sticky.locality.evicted > 0
    assert sticky.locality.landed == sticky.locality.resident
    assert all(one.removed for one in sources)
    assert not any("eviction" in note for note in run.notes)


@pytest.mark.usefixtures("_soon")
def test_without_events_locality_is_not_judged_and_counters_give_a_lower_bound(tmp_path: Path) -> None:
    with DeployedSite(tmp_path, events=False) as site:
        run, sources = held(site, tmp_path, seconds=3)
    (sticky,) = run.of("cache_aware (deployed)", UNIQUE)
    assert sticky.locality is None
    assert sum(sticky.spread.requests.values()) == sticky.requests
    shares = {one.arm: one.found_again for one in sources if one.workload == UNIQUE}
    assert shares["cache_aware (deployed)"] == pytest.approx(1.0, abs=0.01)
    assert shares["round_robin"] is not None
    assert shares["round_robin"] < 0.97
    assert any(note.startswith("NOT JUDGED: locality") for note in run.notes)


@pytest.mark.usefixtures("_soon")
def test_what_others_ask_meanwhile_is_told(tmp_path: Path) -> None:
    with DeployedSite(tmp_path) as site, SiteTarget(site.site, tmp_path) as target:
        shape, slots = shape_for(target, 40.0, 0.0)
        talk = Conversations(shape, 1, "x", 1.0)
        before = target.counted()
        site.engines["node1"].complete({"prompt": "somebody else " * 9, "max_tokens": 1})
        load = Load(shape, slots, 1.0)
        found = asyncio.run(hold(target.front(), load, talk, 1))
        counted = since(before, target.counted())
        assert sum(one.requests for one in counted.values()) - len(found.answers) == 1


def test_a_turn_adds_a_whole_block_and_conversations_are_four_times_what_fits(tmp_path: Path) -> None:
    with DeployedSite(tmp_path, blocks=1000) as site, SiteTarget(site.site, tmp_path) as target:
        target.block_size = 128
        shape, slots = shape_for(target, 2.0, 0.0)
        assert 0.7 * shape.more + shape.output >= 128
        assert slots * shape.tokens == pytest.approx(4 * 2 * 1000 * BLOCK, rel=0.02)
        assert slots / shape.think_s == pytest.approx(2.0, rel=0.01)
        with pytest.raises(BenchError, match="cannot ask"):
            shape_for(target, 1000.0, 0.0)
        # A client holds so many and no more.
        target.kv_tokens = 50_000_000
        assert shape_for(target, 2.0, 0.0)[1] == 4000


def test_the_pace_follows_from_what_a_cold_prompt_takes(tmp_path: Path) -> None:
    with DeployedSite(tmp_path) as site, SiteTarget(site.site, tmp_path) as target:
        per_s, cold_s = pace(target, 1)
        assert 0 < cold_s < 1
        assert per_s == pytest.approx(min(8.0, 0.8 / cold_s))
        site.router.answer = lambda path, body: ""  # type: ignore[method-assign]
        with pytest.raises(BenchError, match="does not answer through its router: HTTP 404"):
            pace(target, 1)
