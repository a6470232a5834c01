"""How long a replica computes, and where loading breaks even."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstrata.plan.engine import STEP_OVERHEAD_S, Engine
from kvstrata.plan.presets import MODELS
from tests.plan.samples import engine, seen

LENGTHS = st.integers(2, 60_000)


def at_half_of_the_peak(name: str, ranks: int = 1) -> Engine:
    return replace(engine(name, ranks), mfu=seen(0.5))


@pytest.mark.parametrize(
    ("name", "gbps"),
    [("Llama-3.1-8B", 4.0), ("Qwen3-32B", 2.0), ("Llama-3.1-70B", 1.15), ("Qwen3-30B-A3B", 7.4), ("DeepSeek-V3", 0.47)],
)
def test_the_short_formula_gives_the_break_even_that_is_known_for_an_h100(name: str, gbps: float) -> None:
    # bytes per token * 989 TFLOPS * 0.5 / (2 * parameters): with all parameters, the input embedding too, and in bf16.
    made = at_half_of_the_peak(name)
    kv, shape = made.kv, made.kv.shape
    active = shape.active_parameters + shape.embedding_parameters
    assert kv.stored_bytes_per_token * 989e12 * 0.5 / (2 * active) / 1e9 == pytest.approx(gbps, rel=0.03)


@pytest.mark.parametrize("name", ["Llama-3.1-8B", "Qwen3-32B"])
def test_the_whole_model_is_near_the_short_formula_where_attention_is_small(name: str) -> None:
    made = at_half_of_the_peak(name)
    short = made.kv.stored_bytes_per_token * made.flops / (2 * made.kv.shape.active_parameters) / 1e9
    assert 0.8 * short < made.break_even_gbps(2048) < short


def test_attention_makes_long_prompts_cheaper_to_load_than_to_compute() -> None:
    made = engine()
    rates = [made.break_even_gbps(tokens) for tokens in (4096, 16384, 65536)]
    assert rates == sorted(rates, reverse=True)


def test_prefill_of_llama_8b_is_what_was_worked_out_by_hand() -> None:
    # One step of 8192 tokens, at 0.65 of 989.4 TFLOPS: products, and attention of 32 layers with 32 heads of 128.
    flops = 2 * (8_030_261_248 - 128256 * 4096) * 8192 + 32 * 4 * 32 * 128 * 8192 * 8193 / 2
    wanted = STEP_OVERHEAD_S.value + flops / (989.4e12 * 0.65)
    assert engine().compute_s(8192) == pytest.approx(wanted, rel=1e-9)


def test_a_single_token_takes_as_long_as_reading_the_weights() -> None:
    weights = 2 * (8_030_261_248 - 128256 * 4096)
    assert engine().compute_s(1) == pytest.approx(STEP_OVERHEAD_S.value + weights / (3350e9 * 0.85), rel=1e-4)


def test_hbm_holds_what_the_weights_leave() -> None:
    # 80 GiB * 0.9 - 2 GiB - 14.96 GiB of weights, 128 KiB a token.
    assert engine().hbm_tokens == pytest.approx((72 - 2 - 14.96) * 2**30 / 131072, rel=0.001)
    assert engine(kv_cache_gib=12).hbm_tokens == 98304
    assert engine("Llama-3.1-70B").hbm_kv_bytes < 0


@given(tokens=LENGTHS, cached=st.integers(0, 60_000))
def test_what_is_cached_saves_its_computing_and_costs_its_reading(tokens: int, cached: int) -> None:
    made = engine()
    there = min(cached, tokens)
    steps = -(-tokens // made.step_tokens)
    reading = steps * there * made.kv.stored_bytes_per_token / made.memory_bps
    assert 0 < made.compute_s(tokens, there) <= made.compute_s(tokens) + reading


@given(tokens=LENGTHS, name=st.sampled_from(MODELS))
def test_more_ranks_are_never_slower(tokens: int, name: str) -> None:
    assert engine(name, 4).compute_s(tokens) <= engine(name, 2).compute_s(tokens)


@given(tokens=LENGTHS, more=st.integers(1, 10_000), name=st.sampled_from(MODELS))
def test_a_longer_prompt_takes_longer(tokens: int, more: int, name: str) -> None:
    assert engine(name, 8).compute_s(tokens + more) > engine(name, 8).compute_s(tokens)
