"""Configurations and their variants: what may be varied, and what is refused before anything starts."""

from __future__ import annotations

import pytest

from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving.configurations import PRESETS, Sizes, preset, problems, refusal
from kvstrata.bench.serving.sweep import parse, variants

BASE = preset("dram+ssd", Sizes())


def names(*given: str, cross: bool = False) -> list[str]:
    return [c.name for c in variants(BASE, parse(given), cross=cross)]


def test_one_axis_is_varied_at_a_time_around_the_base() -> None:
    found = variants(BASE, parse(["chunk_size=64,1024 piece_size=256KiB"]))
    assert [(c.chunk_tokens, c.piece_bytes) for c in found] == [
        (256, 1 << 20),
        (64, 1 << 20),
        (1024, 1 << 20),
        (256, 1 << 18),
    ]
    assert [c.name for c in found][1:] == [
        "dram+ssd chunk_size=64",
        "dram+ssd chunk_size=1024",
        "dram+ssd piece_size=256KiB",
    ]


def test_the_bases_own_value_is_not_measured_twice() -> None:
    assert names("chunk_size=64,256") == ["dram+ssd", "dram+ssd chunk_size=64"]


def test_cross_is_every_combination() -> None:
    found = names("connections=2,4", "hbm_gib=1,2", cross=True)
    assert len(found) == 5
    assert "dram+ssd connections=2 hbm_gib=2" in found


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("colour=red", "--sweep 'colour=red'; allowed: NAME=VALUE,... with NAME of chunk_size, piece_size"),
        ("chunk_size", "--sweep 'chunk_size'; allowed"),
        ("chunk_size=big", "--sweep chunk_size: 'big'; allowed: tokens"),
        ("piece_size=1MB", "--sweep piece_size: '1MB'; allowed: bytes, as 256KiB or 1MiB"),
        ("hbm_gib=1 hbm_gib=2", "--sweep names hbm_gib twice"),
    ],
)
def test_what_cannot_be_swept_is_refused(given: str, told: str) -> None:
    with pytest.raises(BenchError) as caught:
        parse([given])
    assert told in str(caught.value)


def test_an_axis_that_does_not_matter_to_the_base_is_refused() -> None:
    with pytest.raises(BenchError, match=r"--sweep piece_size: dram has no kvstrata.l2; allowed: another --base"):
        variants(preset("dram", Sizes()), parse(["piece_size=1MiB"]))


def test_an_unknown_preset_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(BenchError, match="--configurations names 'fast'; allowed: none, native, dram, dram"):
        preset("fast", Sizes())


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_no_problem(name: str) -> None:
    assert problems(preset(name, Sizes())) == []


def test_values_that_cannot_be_meant_are_named() -> None:
    (told,) = problems(variants(BASE, parse(["connections=99"]))[1])
    assert told == "dram+ssd connections=99: connections is 99; allowed: 1 to 64, or 0"


def test_what_needs_a_gpu_is_not_run_on_cpu_and_says_why() -> None:
    assert "needs a GPU" in str(refusal(preset("native", Sizes()), "cpu"))
    assert "needs a GPU" in str(refusal(preset("poc", Sizes()), "cpu"))
    assert [name for name in PRESETS if refusal(preset(name, Sizes()), "cuda")] == []
    assert refusal(preset("resp", Sizes()), "cpu") is None


def test_a_chunk_must_be_whole_blocks_of_the_engine() -> None:
    small = variants(BASE, parse(["chunk_size=64"]))[1]
    assert refusal(small, "cuda") is None
    assert refusal(small, "cpu") == "chunk_size is 64; allowed: a multiple of the engine's block, 128 tokens"
    assert refusal(small, "cpu", block_tokens=32) is None
