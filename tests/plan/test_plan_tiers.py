"""Tiers: what limits them, and whether they pay."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstrata.plan.figures import Basis
from kvstrata.plan.nodes import Node
from kvstrata.plan.presets import MODELS
from kvstrata.plan.reading import BadInputError
from kvstrata.plan.tiers import Tier, TierName, judge, store_lookup_s, tiers_of
from tests.plan.samples import deployment, dram, engine, node, seen, ssd

RATES = st.floats(0.01, 500, allow_nan=False)
LENGTHS = st.integers(2, 40_000)


def named(found: tuple[Tier, ...], name: TierName) -> Tier:
    return next(tier for tier in found if tier.name is name)


def with_drives(changed: Node, gbps: float) -> Node:
    return replace(changed, drives=tuple(replace(drive, read_gbps=seen(gbps)) for drive in changed.drives))


@given(rate=RATES, more=st.floats(1, 100), tokens=LENGTHS, sharing=st.integers(1, 16), name=st.sampled_from(MODELS))
def test_more_bandwidth_never_makes_a_tier_hurt(rate: float, more: float, tokens: int, sharing: int, name: str) -> None:
    made, behind = engine(name, 8), dram(100, 1000)
    slow = judge(made, ssd(rate, behind), tokens, 256, sharing, 1)
    fast = judge(made, ssd(rate * more, behind), tokens, 256, sharing, 1)
    assert fast.hit_s <= slow.hit_s
    assert fast.margin >= slow.margin
    assert fast.pays or not slow.pays


@given(rate=RATES, tokens=LENGTHS, name=st.sampled_from(MODELS))
def test_more_replicas_that_load_at_once_never_make_a_tier_pay(rate: float, tokens: int, name: str) -> None:
    made = engine(name, 8)
    margins = [judge(made, dram(100, rate), tokens, 256, loads, loads).margin for loads in (1, 2, 8)]
    assert margins == sorted(margins, reverse=True)


@given(tokens=LENGTHS, sharing=st.integers(1, 8))
def test_a_tier_pays_exactly_from_its_break_even_on(tokens: int, sharing: int) -> None:
    made = engine()
    needed = judge(made, dram(100), tokens, 256, sharing, sharing).break_even_gbps
    if tokens <= 256 or needed == float("inf"):
        return
    assert judge(made, dram(100, needed * 1.001), tokens, 256, sharing, sharing).pays
    assert not judge(made, dram(100, needed * 0.999), tokens, 256, sharing, sharing).pays


def test_a_prompt_below_one_chunk_has_no_hit() -> None:
    verdict = judge(engine(), dram(100), 256, 256, 1, 1)
    assert verdict.hit_s == verdict.miss_s


def test_the_drives_set_the_pace_where_they_are_slow() -> None:
    tier = named(tiers_of(with_drives(node(), 0.3), deployment()), TierName.SSD)
    assert tier.slowest[0] == "drives"
    assert tier.slowest[1].value == pytest.approx(8 * 0.3 * 0.9)
    assert tier.slowest[1].basis is Basis.MEASURED


def test_the_network_carries_what_other_nodes_hold() -> None:
    slow = replace(node(), nic_gbit=seen(10))
    alone, of_two, of_many = (named(tiers_of(slow, deployment(nodes=nodes)), TierName.SSD) for nodes in (1, 2, 100))
    assert "network" not in dict(alone.limits)
    assert of_two.slowest[1].value == pytest.approx(10 / 8 * 0.92 * 2)
    assert of_many.slowest[1].value == pytest.approx(10 / 8 * 0.92 / 0.99)


def test_bytes_from_the_drives_go_through_dram_too() -> None:
    behind = dram(100, 10.0)
    assert ssd(10.0, behind).gbps == pytest.approx(5.0)


def test_links_carry_the_latent_of_mla_once_for_each_rank() -> None:
    links = dict(named(tiers_of(node(), deployment("DeepSeek-V3", tensor_parallel=8)), TierName.DRAM).limits)
    # Eight links of 63 GB/s at 0.87, each of which carries every byte.
    assert links["GPU links"].value == pytest.approx(63 * 0.87)
    links = dict(named(tiers_of(node(), deployment("Llama-3.1-70B", tensor_parallel=8)), TierName.DRAM).limits)
    assert links["GPU links"].value == pytest.approx(8 * 63 * 0.87)


def test_a_single_load_has_only_its_own_links() -> None:
    tier = named(tiers_of(node(), deployment()), TierName.DRAM)
    assert tier.gbps == 300
    assert tier.gbps_of(1) == pytest.approx(63 * 0.87)
    assert tier.load_s(63e9 * 0.87, 1) == pytest.approx(1)


def test_a_measured_link_is_taken_as_it_is() -> None:
    changed = replace(node("1xH100-SXM"), gpu=replace(node().gpu, link_gbps=seen(55)))
    assert dict(named(tiers_of(changed, deployment()), TierName.DRAM).limits)["GPU links"].value == 55


def test_a_measured_rate_of_the_drives_replaces_drives_cpu_and_client() -> None:
    tier = named(tiers_of(node(), deployment(nodes=2), seen(20)), TierName.SSD)
    assert dict(tier.limits).keys() == {"as measured", "network"}


def test_tiers_that_are_not_there_are_not_judged() -> None:
    assert [tier.name for tier in tiers_of(replace(node(), drives=()), deployment())] == [TierName.DRAM]
    assert [tier.name for tier in tiers_of(node(), deployment(dram_cache_gib=0))] == [TierName.SSD]


def test_capacity_of_the_drives_is_that_of_the_site() -> None:
    one, three = (named(tiers_of(node(), deployment(nodes=nodes)), TierName.SSD).capacity_gib for nodes in (1, 3))
    assert one == pytest.approx(8 * 0.75 * 1698)
    assert three == pytest.approx(3 * one)


@given(chunks=st.integers(0, 4000))
def test_a_lookup_of_more_chunks_takes_no_less(chunks: int) -> None:
    assert 0 <= store_lookup_s(chunks) <= store_lookup_s(chunks + 1)


def test_lookups_take_what_was_measured() -> None:
    assert [store_lookup_s(chunks) * 1e3 for chunks in (1, 32, 128)] == pytest.approx([0.45, 3.97, 4.37])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"replicas": 9}, "replicas is 9; allowed: 1 to 8: 8 GPUs / 1"),
        ({"tensor_parallel": 16}, "tensor_parallel is 16; allowed: at most the node's 8 GPUs"),
        ({"dram_cache_gib": 4096}, "dram_cache_gib is 4096; allowed: at most 2048, the DRAM"),
    ],
)
def test_what_does_not_fit_into_a_node_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        tiers_of(node(), deployment(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes": 0}, "nodes is 0; allowed: 1 to 1000"),
        ({"chunk_tokens": 8}, "chunk_tokens is 8; allowed: 16 to 4096"),
        ({"dram_cache_gib": -1}, "dram_cache_gib is -1; allowed: 0 or more"),
    ],
)
def test_sizes_that_mean_nothing_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        deployment(**changes)
