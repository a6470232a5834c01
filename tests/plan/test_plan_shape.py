"""Parameters and KV of every known model, against figures worked out by hand and those that makers publish."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstrata.plan.presets import MODELS, guessed, model
from kvstrata.plan.reading import BadInputError
from kvstrata.plan.shape import KvLayout, seen

# 2 * layers * KV heads * head size * 2 bytes; MLA: layers * (512 + 64) * 2 bytes.
KV_BYTES = {
    "Llama-3.1-8B": 131072,
    "Llama-3.1-70B": 327680,
    "Qwen3-32B": 262144,
    "Qwen3-30B-A3B": 98304,
    "DeepSeek-V3": 70272,
    "gpt-oss-20b": 49152,
    "gpt-oss-120b": 73728,
}
# In 10^9, all and active, as published (kvstrata/plan/presets.py names where).
PARAMETERS = {
    "Llama-3.1-8B": (8.03, None),
    "Llama-3.1-70B": (70.55, None),
    "Qwen3-32B": (32.8, None),
    "Qwen3-30B-A3B": (30.5, None),
    "DeepSeek-V3": (671.0, 36.6),
    "gpt-oss-20b": (20.9, 3.6),
    "gpt-oss-120b": (116.8, 5.1),
}


def test_every_known_model_is_in_the_tables() -> None:
    assert set(MODELS) == set(KV_BYTES) == set(PARAMETERS)


@pytest.mark.parametrize("name", MODELS)
def test_kv_of_a_token_is_what_was_worked_out_by_hand(name: str) -> None:
    assert KvLayout(model(name), 1).stored_bytes_per_token == KV_BYTES[name]


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_those_that_the_maker_publishes(name: str) -> None:
    every, active = PARAMETERS[name]
    assert model(name).parameters / 1e9 == pytest.approx(every, rel=0.003)
    if active:
        assert model(name).active_parameters / 1e9 == pytest.approx(active, rel=0.01)


def test_llama_8b_has_exactly_as_many_parameters_as_its_tensors() -> None:
    assert model("Llama-3.1-8B").parameters == 8_030_261_248
    assert model("Llama-3.1-70B").parameters == 70_553_706_496


def test_weights_are_counted_in_their_own_types() -> None:
    assert model("Llama-3.1-8B").weight_bytes == 2 * 8_030_261_248
    # fp8 but for the vocabulary: 671 GB and two tables of 0.93 GB more.
    assert model("DeepSeek-V3").weight_bytes / 1e9 == pytest.approx(672.9, rel=0.001)
    # MXFP4 experts: OpenAI gives 12.8 and 60.8 GiB as the checkpoints' sizes (arXiv 2508.10925, table 1).
    assert model("gpt-oss-20b").weight_bytes / 2**30 == pytest.approx(12.8, rel=0.01)
    assert model("gpt-oss-120b").weight_bytes / 2**30 == pytest.approx(60.8, rel=0.01)


@pytest.mark.parametrize(("ranks", "per_rank", "stored"), [(1, 131072, 131072), (2, 65536, 131072), (8, 16384, 131072)])
def test_gqa_splits_its_heads_over_the_ranks(ranks: int, per_rank: int, stored: int) -> None:
    layout = KvLayout(model("Llama-3.1-8B"), ranks)
    assert (layout.rank_bytes_per_token, layout.stored_bytes_per_token) == (per_rank, stored)


@pytest.mark.parametrize(("ranks", "stored"), [(4, 98304), (8, 196608), (16, 393216)])
def test_gqa_with_fewer_heads_than_ranks_is_stored_once_for_each_rank(ranks: int, stored: int) -> None:
    # Four KV heads: from eight ranks on each head is there twice or more.
    layout = KvLayout(model("Qwen3-30B-A3B"), ranks)
    assert layout.stored_bytes_per_token == stored
    assert layout.rank_bytes_per_token == 24576


@pytest.mark.parametrize("ranks", [1, 2, 8])
def test_the_latent_of_mla_is_on_every_rank_and_stored_once(ranks: int) -> None:
    layout = KvLayout(model("DeepSeek-V3"), ranks)
    assert layout.rank_bytes_per_token == 70272
    assert layout.stored_bytes_per_token == 70272


def test_fp8_halves_the_kv() -> None:
    assert KvLayout(model("Llama-3.1-8B"), 1, "fp8").stored_bytes_per_token == 65536


def test_layers_with_a_window_are_bounded_in_hbm_and_whole_in_the_tiers() -> None:
    layout = KvLayout(model("gpt-oss-20b"), 1)
    # 2 * 8 heads * 64 * 2 bytes = 2048 a layer; 12 layers see everything, 12 see 128 tokens.
    assert layout.hbm_rank_bytes(1000) == 2048 * (12 * 1000 + 12 * 128)
    assert layout.hbm_rank_bytes(100) == 2048 * 24 * 100
    assert layout.stored_bytes_per_token == 2048 * 24


@pytest.mark.parametrize(("name", "ranks"), [("Llama-3.1-8B", 3), ("Llama-3.1-8B", 0), ("Qwen3-30B-A3B", 64)])
def test_heads_that_cannot_be_split_are_refused(name: str, ranks: int) -> None:
    with pytest.raises(BadInputError, match=rf"tensor_parallel is {ranks}; allowed: a divisor"):
        KvLayout(model(name), ranks)


def test_kv_heads_that_can_be_neither_split_nor_repeated_are_refused() -> None:
    # 12 heads over 6 ranks would do, but not 4 KV heads.
    shape = replace(model("Qwen3-30B-A3B"), heads=12)
    with pytest.raises(
        BadInputError, match="tensor_parallel is 6; allowed: a divisor or a multiple of the model's 4 KV"
    ):
        KvLayout(shape, 6)
    assert KvLayout(shape, 12).stored_bytes_per_token == 12 * KvLayout(shape, 4).rank_bytes_per_token


def test_an_unknown_kv_type_is_refused_with_those_there_are() -> None:
    with pytest.raises(BadInputError, match=r"kv_dtype is 'int3'; allowed: auto, .*fp8"):
        KvLayout(model("Llama-3.1-8B"), 1, "int3")


@given(cached=st.integers(0, 200), new=st.integers(1, 200), window=st.integers(1, 150))
def test_the_pairs_of_attention_are_those_counted_one_by_one(cached: int, new: int, window: int) -> None:
    positions = range(cached, cached + new)
    assert seen(cached, new) == sum(position + 1 for position in positions)
    assert seen(cached, new, window) == sum(min(position + 1, window) for position in positions)


@given(tokens=st.integers(1, 100_000))
def test_a_step_never_touches_more_experts_than_there_are(tokens: int) -> None:
    shape = model("Qwen3-30B-A3B")
    assert shape.touched_bytes(1) == pytest.approx(2 * shape.active_parameters)
    assert shape.touched_bytes(1) <= shape.touched_bytes(tokens) <= shape.weight_bytes


@pytest.mark.parametrize(
    ("served", "known"),
    [
        ("Meta-Llama-3.1-8B-Instruct", "Llama-3.1-8B"),
        ("llama-3.1-70b-instruct", "Llama-3.1-70B"),
        ("openai/gpt-oss-120b", "gpt-oss-120b"),
        ("mistral-7b", None),
    ],
)
def test_a_served_name_is_recognized(served: str, known: str | None) -> None:
    assert guessed(served) == known


def test_an_unknown_model_names_the_known_ones() -> None:
    with pytest.raises(BadInputError, match=r"model is 'Llama-9'; allowed: .*Qwen3-32B"):
        model("Llama-9")
