"""What preflight is told of a host's tiers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kvstrata.plan.guard import Host, host_of, judge_plan

LLAMA_8B = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "dtype": "bfloat16",
}


def fact(**rates: float) -> dict[str, Any]:
    baselines = {name: {"on_written_data": True, "seq_1m": {"mb_per_s": rate * 1e3}} for name, rate in rates.items()}
    return {"schema": 1, "drives": {name: {"baseline": baseline} for name, baseline in baselines.items()}}


SLOW = Host(
    config=LLAMA_8B,
    gpus=["NVIDIA H100 80GB HBM3"],
    drives_fact=fact(d0=1.5),
    verify=None,
    stores={"d0": 100},
    memory_bytes=126 << 30,
    nodes=1,
    replicas=1,
    tensor_parallel=1,
    dram_cache_gib=60,
)


def test_a_slow_drive_beside_an_h100_is_a_problem_that_names_a_way_out() -> None:
    (problem,) = judge_plan("n1", SLOW).problems
    assert str(problem).startswith("n1: kvstrata_drives is 'd0: 1.")
    assert "lmcache_min_load_gbps to 5." in problem.allowed
    assert "prompt of 2254 tokens takes 0." in problem.allowed


def test_the_suggested_cut_settles_it() -> None:
    assert judge_plan("n1", replace(SLOW, min_load_gbps=5.6)).problems == ()


def test_a_fast_drive_pays() -> None:
    judged = judge_plan("n1", replace(SLOW, drives_fact=fact(d0=14)))
    assert (judged.problems, judged.unknown) == ((), ())


def test_replicas_share_the_drives() -> None:
    eight = replace(SLOW, gpus=["NVIDIA H100 80GB HBM3"] * 8, replicas=8, drives_fact=fact(d0=16))
    assert judge_plan("n1", eight).problems
    assert not judge_plan("n1", replace(eight, replicas=2)).problems


def test_a_slower_computer_makes_the_same_drive_pay() -> None:
    assert not judge_plan("n1", replace(SLOW, gpus=["NVIDIA L40S"], drives_fact=fact(d0=4))).problems
    assert judge_plan("n1", replace(SLOW, drives_fact=fact(d0=4))).problems


def test_a_measured_cold_prompt_counts_instead_of_the_data_sheet() -> None:
    steps = [{"name": "cold", "ttft_s": 4.0, "prompt_tokens": 4113, "l2_tokens": 0}]
    slow_engine = {"schema": 1, "checks": [], "tiers": {"steps": steps}}
    assert not judge_plan("n1", replace(SLOW, verify=slow_engine)).problems


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"stores": {}}, "no drives: there is no SSD tier to judge"),
        ({"config": None}, "the model's config.json cannot be read"),
        ({"gpus": []}, "no GPU is seen"),
        ({"gpus": ["NVIDIA T4"]}, "no figures for NVIDIA T4"),
        ({"gpus": ["NVIDIA L40S", "NVIDIA H200"]}, "no figures for NVIDIA H200, NVIDIA L40S"),
        ({"drives_fact": None}, "no baseline of d0"),
        ({"drives_fact": {"schema": 7}}, "the drives' fact cannot be used: measured.schema is 7"),
        ({"drives_fact": fact(d1=3)}, "no baseline of d0"),
        ({"stores": {"d0": 1, "d1": 1}}, "no baseline of d1"),
        ({"config": {"hidden_size": 1}}, "the plan cannot be made: config.json.num_hidden_layers is None"),
        ({"replicas": 2}, "the plan cannot be made: replicas is 2"),
        ({"verify": {"schema": 8, "tiers": None}}, "the plan cannot be made: measured.schema is 8"),
    ],
)
def test_what_is_not_known_is_said_and_nothing_is_judged(changes: dict[str, Any], missing: str) -> None:
    judged = judge_plan("n1", replace(SLOW, **changes))
    assert judged.problems == ()
    assert any(reason.startswith(missing) for reason in judged.unknown)


PLAN: dict[str, Any] = {
    "config": "/srv/m/config.json",
    "verify": "/nowhere/verify.json",
    "model": "llama",
    "stores": {"d0": 100},
    "nodes": 1,
    "replicas": 1,
    "tensor_parallel": 1,
    "dram_cache_gib": 60,
    "dtype": "auto",
    "kv_dtype": "auto",
    "chunk_tokens": 256,
    "max_model_len": 1 << 20,
    "min_load_gbps": 0,
}
PROBE: dict[str, Any] = {
    "texts": {"/srv/m/config.json": json.dumps(LLAMA_8B)},
    "gpus": ["NVIDIA H100 80GB HBM3"],
    "memory": 126 << 30,
}


def test_a_host_is_made_of_inventory_probe_and_fact() -> None:
    assert host_of(PLAN, PROBE, fact(d0=1.5)) == SLOW


def test_numbers_may_come_as_the_text_that_a_template_makes() -> None:
    text = PLAN | {name: str(PLAN[name]) for name in ("nodes", "replicas", "dram_cache_gib", "min_load_gbps")}
    assert host_of(text, PROBE, fact(d0=1.5)) == SLOW


@pytest.mark.parametrize(("served", "counts"), [("llama with 8192 tokens", True), ("other with 8192 tokens", False)])
def test_the_last_report_of_verify_counts_where_it_is_of_this_model(tmp_path: Path, served: str, counts: bool) -> None:
    path = tmp_path / "verify.json"
    report = {"schema": 1, "checks": [{"id": "engine.model", "seen": served}], "tiers": None}
    path.write_text(json.dumps(report))
    assert host_of(PLAN | {"verify": str(path)}, PROBE, None).verify == (report if counts else None)


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_configuration_that_is_none_is_not_known(text: str) -> None:
    host = host_of(PLAN, PROBE | {"texts": {"/srv/m/config.json": text}}, {})
    assert (host.config, host.drives_fact) == (None, None)


def test_everything_that_is_missing_is_said_at_once() -> None:
    assert len(judge_plan("n1", replace(SLOW, config=None, gpus=[], drives_fact=None)).unknown) == 3
