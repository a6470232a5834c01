"""When HBM alone holds a load, by what the engines say of their room and by how their router chooses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kvstrata.bench.serving import hbm_room, report
from kvstrata.bench.serving.record import Record
from tests.bench.serving import recorded

ROOM = 5000.0
"""Tokens of one engine's KV."""


def record(live: int | None, engines: int = 1, **stack: Any) -> Record:
    """One configuration with `engines` of that room; its load holds `live` tokens at once."""
    made = recorded.record()
    after = {f"vllm:{number}": {"kv_capacity_tokens": ROOM} for number in range(engines)}
    made.phases = [replace(each, after=after) for each in made.phases if each.configuration == "dram+ssd"]
    made.plan["workloads"] = [{"name": made.phases[0].workload, "working_set": {"live": live}}]
    made.stack |= {"replicas": engines, **stack}
    made.notes = []
    return made


def holds(made: Record) -> bool:
    """Whether it is so; what the report says of it is checked to be the same."""
    found = hbm_room.holds(made, "dram+ssd", made.phases[0].workload)
    assert any(hbm_room.FITS in remark for remark in report.make(made).remarks) is found
    return found


@pytest.mark.parametrize(("live", "fits"), [(5000, True), (5001, False), (None, False)])
def test_an_engine_holds_what_it_has_room_for(live: int | None, fits: bool) -> None:
    assert holds(record(live)) is fits


def test_nothing_is_said_where_the_room_is_not_known() -> None:
    made = record(10)
    made.phases = [replace(each, after={"vllm:0": {}}) for each in made.phases]
    assert not holds(made)


@pytest.mark.parametrize("policy", [None, "cache_aware", "kv_aware", "kv"])
def test_replicas_that_keep_their_conversations_hold_as_many_as_all_have_room_for(policy: str | None) -> None:
    assert holds(record(10_000, 2, router_policy=policy))
    assert not holds(record(10_001, 2, router_policy=policy))


def test_runs_from_before_they_told_the_policy_had_the_default() -> None:
    assert holds(record(10_000, 2))


@pytest.mark.parametrize("policy", ["round_robin", "random", "power_of_two", "round-robin"])
def test_replicas_that_are_asked_for_any_conversation_hold_what_one_has_room_for(policy: str) -> None:
    assert not holds(record(5001, 2, router_policy=policy))
    made = record(5000, 2, router_policy=policy)
    assert holds(made)
    assert "each engine has room for 5000" in hbm_room.remarks(made)[0]


def test_of_a_node_of_a_site_the_engine_that_is_loaded_counts_alone() -> None:
    beside = {"kind": "site", "replicas": 1}
    assert holds(record(5000, 2, **beside))
    assert not holds(record(5001, 2, **beside))


def test_of_unlike_replicas_the_smallest_counts_then() -> None:
    made = record(4500, 2, router_policy="random")
    smaller = {"vllm:0": {"kv_capacity_tokens": 4000.0}, "vllm:1": {"kv_capacity_tokens": 5000.0}}
    made.phases = [replace(each, after=smaller) for each in made.phases]
    assert not holds(made)


def test_it_is_said_once_of_each_configuration_and_no_other() -> None:
    made = record(100)
    assert len(made.phases) > 1
    assert len(hbm_room.remarks(made)) == 1
    assert not hbm_room.holds(made, "none", made.phases[0].workload)
    assert not hbm_room.holds(made, "dram+ssd", "longdoc")


def test_what_a_run_once_noted_of_it_is_judged_anew() -> None:
    made = record(10_000, 2, router_policy="round_robin")
    made.notes = [f"dram+ssd: {hbm_room.FITS}: poc holds 10000 tokens at once", "--rounds 1"]
    assert not holds(made)
    assert "--rounds 1" in report.make(made).remarks
