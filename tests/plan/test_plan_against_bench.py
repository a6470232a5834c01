"""`kvstrata plan --against`: what is predicted of a run is compared with what the run measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from kvstrata.bench.serving.model import Json
from kvstrata.bench.serving.record import Record, Start, to_json
from kvstrata.bench.serving.report_file import read
from kvstrata.cli import app
from kvstrata.plan import against_text, benched
from kvstrata.plan.against import compare
from kvstrata.plan.compared import QUANTITIES, Comparison
from kvstrata.plan.gpus import gpu
from kvstrata.plan.measured import Measured
from kvstrata.plan.nodes import parse_node
from kvstrata.plan.presets import model
from kvstrata.plan.reading import BadInputError, Fields
from tests.plan import benched_run
from tests.plan.samples import seen


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return compare(benched_run.record())


def errors(found: Comparison, configuration: str, block: int = 0) -> dict[str, float]:
    lines = [line for line in found.blocks[block].lines if line.configuration == configuration]
    return {f"{line.pass_} {pair.quantity}": pair.error for line in lines for pair in line.pairs}


def test_a_run_that_went_as_predicted_is_within_rounding_everywhere(comparison: Comparison) -> None:
    (block,) = comparison.blocks
    assert [(line.configuration, line.pass_) for line in block.lines] == [
        (name, pass_) for pass_ in ("cold", "warm") for name in benched_run.NAMES
    ]
    for name in benched_run.NAMES:
        for what, error in errors(comparison, name).items():
            # Tokens of an answer are rounded in the samples; a median between two requests differs by one rank.
            assert error == pytest.approx(0, abs=0.02), (name, what)
    assert not comparison.off
    assert {pair.quantity for line in block.lines for pair in line.pairs} == set(QUANTITIES)
    rates = {line.configuration: line.ssd_gbps.value for line in block.lines if line.ssd_gbps}
    assert rates == {"dram+ssd": benched_run.SSD_GBPS}


def test_what_was_slower_than_predicted_is_off_and_named() -> None:
    found = compare(benched_run.record({"dram": 2.0}))
    wrong = errors(found, "dram")
    assert wrong["cold output tokens/s"] == pytest.approx(1.0, abs=0.03)
    assert wrong["cold TTFT P50 s"] == pytest.approx(-0.5, abs=0.02)
    assert wrong["cold cached"] == pytest.approx(0, abs=0.01)
    assert found.off
    assert {line.configuration for line, _ in found.blocks[0].off} == {"dram"}
    said = list(against_text.sentences(found))
    assert any(text.startswith("OFF output tokens/s, as planned: 2 of 6 by more than 15%") for text in said)


def test_a_tier_that_hurt_and_was_said_to_help_is_told() -> None:
    found = compare(benched_run.record({"dram": 9.0}))
    wrong = [line for line in found.blocks[0].lines if line.wrong]
    assert {line.configuration for line in wrong} == {"dram"}
    assert all(line.helps == (True, False) for line in wrong)
    assert any("WRONG about what helps" in text for text in against_text.sentences(found))


def test_prompts_that_were_computed_alone_give_a_second_prediction_with_their_mfu() -> None:
    found = compare(benched_run.record(alone_mfu=0.4))
    planned, fitted = found.blocks
    assert planned.mfu.value == 0.65
    assert fitted.mfu.value == pytest.approx(0.4, rel=1e-3)
    # At less than planned the same load takes longer.
    assert errors(found, "none", 1)["cold output tokens/s"] < -0.05
    (alone,) = found.alone
    assert alone.error < -0.15


def test_the_rate_of_resp_is_what_lmcache_says_of_its_loads() -> None:
    record = benched_run.record()
    entry: Any = record.plan["configurations"]
    entry[2] |= {"name": "resp", "stores": "resp"}
    name = "lmcache_mp_l2_load_throughput_GB_per_second"
    record.phases = [
        replace(phase, configuration="resp", after={"lmcache": {f"{name}_sum": 6.0, f"{name}_count": 4.0}})
        if phase.configuration == "dram+ssd"
        else phase
        for phase in record.phases
    ]
    rates = {case.configuration: case.seen.ssd_gbps for case in benched.cases_of(record)}
    assert rates["none"] is None
    assert rates["resp"] is not None
    assert rates["resp"].value == 1.5
    # Together they were faster: the stores sent more than that in each second of the phase.
    record.phases = [
        replace(phase, after={**phase.after, "kvrocks:a:1": {"total_net_output_bytes": 2.5e9 * phase.duration_s}})
        for phase in record.phases
    ]
    (rate,) = {case.seen.ssd_gbps for case in benched.cases_of(record) if case.configuration == "resp"}
    assert rate is not None
    assert rate.value == pytest.approx(2.5)
    assert rate.source == "what the stores sent over the whole phase"


def test_what_nothing_can_be_said_of_is_told_and_left_out() -> None:
    record = benched_run.record()
    configurations: Any = record.plan["configurations"]
    configurations[1]["cache"] = "native"
    record.phases = [replace(phase, after={}) for phase in record.phases]
    found = compare(record)
    assert {line.configuration for line in found.blocks[0].lines} == {"none"}
    assert "dram: not predicted; a plan knows LMCache's daemon alone" in found.notes
    assert "dram+ssd: not predicted; nothing told how fast its stores were" in found.notes
    assert any(note.startswith("nothing tells the MFU") for note in found.notes)


@pytest.mark.parametrize("part", ["lmcache", "lmcache.service"], ids=["this machine", "a deployed node"])
def test_lmcache_is_simulated_with_the_flags_that_the_run_gave_it(part: str) -> None:
    record = benched_run.record()
    as_the_role = compare(record)
    flags: dict[str, Json] = {"--l2-prefetch-policy": "retain", "--l2-prefetch-max-in-flight": 32}
    record.starts = [Start("dram+ssd", 1, 1.0, {part: {"flags": flags}})]
    assert errors(compare(record), "dram+ssd") == errors(as_the_role, "dram+ssd")
    # With LMCache's own defaults.
    record.starts = [Start("dram+ssd", 1, 1.0, {part: {"flags": {}}})]
    assert errors(compare(record), "dram+ssd") != errors(as_the_role, "dram+ssd")


@pytest.mark.parametrize("told", ["this machine", "a deployed node"])
def test_a_run_that_did_not_always_ask_lmcache_is_simulated_so(told: str) -> None:
    record = benched_run.record()
    always = errors(compare(record), "dram+ssd")
    transfer = json.dumps({"kv_connector_extra_config": {"kvstrata.recheck_s": 30}})
    options: dict[str, Json] = {"kv-transfer-config": transfer}
    given: dict[str, Json] = {"vllm:0": {"options": options}} if told == "this machine" else {"vllm@0.service": options}
    record.starts = [Start("dram+ssd", 1, 1.0, given)]
    assert errors(compare(record), "dram+ssd") != always


def test_a_measured_rate_goes_before_the_runs_own() -> None:
    found = compare(benched_run.record(), measured=Measured(ssd_gbps=seen(9.0)))
    assert {line.ssd_gbps.value for line in found.blocks[0].lines if line.ssd_gbps} == {9.0}


def test_the_room_in_hbm_is_compared_where_vllm_chose_it() -> None:
    record = benched_run.record()
    configurations: Any = record.plan["configurations"]
    configurations[0]["hbm_gib"] = None
    record.phases = [replace(phase, after={"vllm:0": {"kv_capacity_tokens": 400_000.0}}) for phase in record.phases]
    found = compare(record)
    (room,) = found.room
    assert room.measured == 400_000
    assert room.predicted > 300_000


def test_the_model_is_the_one_in_the_file_or_the_one_of_its_name() -> None:
    record = benched_run.record()
    assert benched.shape_of(record) == model("Llama-3.1-8B")
    record.stack["model"] = {"name": "32b-shape"}
    assert benched.shape_of(record) == model("Qwen3-32B")
    record.stack["model"] = {"name": "nobody's"}
    with pytest.raises(BadInputError, match=r"nobody's.*--model"):
        benched.shape_of(record)
    record.stack["model_config"] = {
        "hidden_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 512,
        "vocab_size": 512,
        "dtype": "bfloat16",
    }
    record.plan["dtype"] = "float32"
    shape = benched.shape_of(record)
    assert (shape.layers, shape.value_bytes) == (4, 4.0)


def test_a_gpu_that_is_not_known_is_refused_by_name() -> None:
    record = benched_run.record()
    record.stack["gpu_names"] = ["Voodoo 2"]
    with pytest.raises(BadInputError, match=r"Voodoo 2.*--node"):
        compare(record)
    assert compare(record, gpu=gpu("H100-SXM")).blocks


def written(record: Record, folder: Path) -> str:
    path = folder / "bench.json"
    record.host = {}
    path.write_text(json.dumps(to_json(record)))
    return str(path)


def test_the_command_prints_and_ends_with_what_is_off(tmp_path: Path) -> None:
    good = CliRunner().invoke(app, ["plan", "--against", written(benched_run.record(), tmp_path)])
    assert (good.exit_code, "all within 15%, as planned" in good.output) == (0, True), good.output
    out = tmp_path / "out.json"
    words = ["plan", "--json", "--output", str(out), "--against", written(benched_run.record({"none": 3.0}), tmp_path)]
    bad = CliRunner().invoke(app, words)
    assert bad.exit_code == 1, bad.output
    document = json.loads(out.read_text())
    assert document["schema"] == against_text.SCHEMA
    assert document["blocks"][0]["lines"][0]["quantities"]["output_per_s"]["off"] is True


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--node is None"),
        (["--against", "/none.json"], "--against is '/none.json'; allowed: what bench serve wrote"),
    ],
)
def test_the_command_refuses_what_it_cannot_use(words: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["plan", *words])
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())


def test_the_page_has_a_table_for_each_pass_and_marks_what_is_off() -> None:
    lines = list(against_text.markdown(compare(benched_run.record({"dram": 2.0}))))
    heads = [line for line in lines if line.startswith("| configuration |")]
    assert len(heads) == 2
    (row, _) = (line for line in lines if line.startswith("| dram |"))
    assert row.count("!") >= 4
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


# -- a real run ----------------------------------------------------------------------------------------

CPU_RUN = Path(__file__).with_name("cpu_bench.json")
"""`bench serve` with real engines, LMCache and Kvrocks on two cores: shares of tokens by source are true there too."""
CPU_NODE = {
    # Its times are none to compare with, so any figures do.
    "gpu": {"name": "two cores", "tflops": {"bf16": 0.1}, "hbm_gib": 1, "hbm_gbps": 20, "link_gbps": 8},
    "gpus": 1,
    "dram_gib": 24,
    "cpu_cores": 2,
}


def test_the_shares_that_real_engines_found_in_their_caches_are_predicted() -> None:
    gpu_of_node = parse_node(Fields("node", CPU_NODE), "test").gpu
    found = compare(read(CPU_RUN), gpu=gpu_of_node)
    lines = found.blocks[0].lines
    assert {(line.configuration, line.pass_) for line in lines} == {
        (name, pass_) for name in ("none", "dram", "dram+ssd", "ssd") for pass_ in ("cold", "warm")
    }
    cached = {
        (line.configuration, line.pass_): pair for line in lines for pair in line.pairs if pair.quantity == "cached"
    }
    assert len(cached) == 8
    assert {key: pair.error for key, pair in cached.items() if pair.off} == {}
    # Blocks of 128 tokens in an HBM of 3,456: vLLM alone finds less than the tiers bring.
    assert cached["none", "warm"].measured < 0.45 < 0.75 < cached["ssd", "warm"].measured


@pytest.mark.parametrize("policy", ["round_robin", "random"])
def test_a_router_that_moves_conversations_is_not_predicted(policy: str) -> None:
    record = benched_run.record()
    record.stack |= {"replicas": 2, "router_policy": policy}
    with pytest.raises(BadInputError, match=f"router policy of the benchmark is '{policy}'; allowed: cache_aware or"):
        compare(record)
