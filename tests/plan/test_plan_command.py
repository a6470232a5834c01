"""The command: report, JSON, exit status, inventory, and the variables that it suggests."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from kvstrata.cli import app
from kvstrata.cluster import Cluster, parse
from kvstrata.paths import PROJECT
from kvstrata.plan.assess import Plan, Question, assess
from kvstrata.plan.document import SCHEMA, as_document
from kvstrata.plan.figures import Basis
from kvstrata.plan.inventory import from_cluster
from kvstrata.plan.measured import Measured
from kvstrata.plan.nodes import named_node
from kvstrata.plan.presets import MODELS
from kvstrata.plan.reading import BadInputError
from kvstrata.plan.suggest import as_yaml, suggested
from kvstrata.plan.tiers import TierName
from kvstrata.preflight import variables
from kvstrata.preflight.cache import judge_cache
from kvstrata.preflight.drives import judge_drives
from tests.cluster.test_cluster_load import DOCUMENT
from tests.plan.samples import deployment, node, seen

RUNNER = CliRunner()
FAST = Measured(ssd_gbps=seen(200))
QUICK = ("--users", "8", "--think-s", "0")


def run(*args: str) -> Any:
    return RUNNER.invoke(app, ["plan", *args])


def planned(measured: Measured = FAST, question: Question | None = None, **changes: Any) -> Plan:
    return assess(node(), deployment(**changes), measured, question or Question(simulated=False))


def cluster(**model: Any) -> Cluster:
    document = copy.deepcopy(DOCUMENT)
    document["model"] |= {"name": "llama-3.1-8b", "dtype": "bfloat16", **model}
    document["nodes"][0]["gpus"] = 2
    document["nodes"][0]["lmcache"] |= {"l1_gib": 64, "min_load_gbps": 3.5, "policy": {"name": "second_use"}}
    return parse(document)


def test_it_exits_with_1_and_names_the_tier_that_hurts() -> None:
    result = run("-m", "Llama-3.1-8B", "-n", "8xH100-SXM", *QUICK)
    assert result.exit_code == 1
    assert "HURTS ssd" in result.output
    assert "PAYS  dram" in result.output


def test_it_exits_with_0_when_every_tier_pays(tmp_path: Path) -> None:
    own = tmp_path / "own.json"
    own.write_text(json.dumps({"schema": "kvstrata.plan.measured/1", "ssd_gbps": 200}))
    result = run("-m", "Llama-3.1-8B", "-n", "8xH100-SXM", "--measured", str(own), "--no-simulate")
    assert result.exit_code == 0, result.output
    assert "HURTS" not in result.output


def test_json_is_the_document_and_nothing_else(tmp_path: Path) -> None:
    output = tmp_path / "plan.json"
    result = run("-m", "gpt-oss-20b", "-n", "2xL40S", *QUICK, "--json", "--output", str(output))
    document = json.loads(result.stdout)
    assert (document["schema"], document["exit_code"]) == (SCHEMA, result.exit_code)
    assert json.loads(output.read_text()) == document


def test_every_figure_says_what_it_rests_on() -> None:
    document = as_document(planned(Measured(mfu=seen(0.5), ssd_gbps=seen(9))))
    bases = {name: figure["basis"] for name, figure in document["figures"].items()}
    assert set(bases.values()) <= {str(basis) for basis in Basis}
    assert (bases["mfu"], bases["ssd_gbps"], bases["gpu_tflops_bf16"]) == ("measured", "measured", "data sheet")
    assert all(figure["source"] for figure in document["figures"].values())
    for tier in document["tiers"]:
        assert {limit["basis"] for limit in tier["limits"].values()} <= {str(basis) for basis in Basis}


def test_the_page_describes_every_field_of_the_json() -> None:
    page = (PROJECT / "docs" / "plan.md").read_text()
    document = as_document(planned(question=Question(users=(8,), thinks=(0.0,))))

    def fields(value: Any) -> set[str]:
        if isinstance(value, dict):
            return set(value) | {name for inner in value.values() for name in fields(inner)}
        return {name for inner in value for name in fields(inner)} if isinstance(value, list) else set()

    # Names that are made of others: figures, parts of a tier's way, sets of tiers, variables.
    document["figures"] = {"mfu": document["figures"]["mfu"]}
    del document["suggested"], document["versions"]
    for tier in document["tiers"]:
        tier["limits"] = {}
    for point in document["curve"]:
        point["tiers"] = list(point["tiers"].values())
    assert [name for name in sorted(fields(document)) if f"`{name}`" not in page] == []


@pytest.mark.parametrize("name", MODELS)
def test_every_known_model_can_be_planned(name: str) -> None:
    ranks = {"DeepSeek-V3": 8, "Llama-3.1-70B": 4}.get(name, 2)
    plan = assess(named_node("8xH200"), deployment(name, tensor_parallel=ranks), FAST, Question(simulated=False))
    assert {tier.tier.name for tier in plan.tiers} == set(TierName)
    assert plan.hbm_tokens > 10_000


def test_weights_that_do_not_fit_are_refused() -> None:
    with pytest.raises(BadInputError, match=r"tensor_parallel is 1; allowed: more: 131 GiB of weights"):
        planned(name="Llama-3.1-70B")


def test_a_node_without_any_tier_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "node.yml"
    path.write_text(yaml.safe_dump({"like": "1xH100-SXM", "drives": []}))
    result = run("-m", "Llama-3.1-8B", "-n", str(path), "--dram-cache-gib", "0")
    assert result.exit_code == 2
    assert "dram_cache_gib is 0" in result.output


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("-n", "8xH100-SXM"), "--model is None; allowed: a config.json"),
        (("-n", "8xH100-SXM", "-m", "none"), "model is 'none'; allowed: a config.json"),
        (("-n", "8xH100", "-m", "Qwen3-32B"), "node is '8xH100'; allowed: a file, or"),
        (("-n", "none.yml", "-m", "Qwen3-32B"), "node is 'none.yml'; allowed: a file that can be read"),
        (("-n", "1xH200", "-m", "Qwen3-32B", "--tp", "3"), "tensor_parallel is 3; allowed: a divisor"),
        (("-n", "1xH200", "-m", "Qwen3-32B", "--kv-dtype", "x"), "kv_dtype is 'x'; allowed: auto"),
        (("-n", "1xH200", "-m", "Qwen3-32B", "--measured", "no.json"), "measured is 'no.json'; allowed: a file that"),
        (("-n", "1xH200", "-i", "no-inventory"), "inventory no-inventory: no such file"),
        (("-n", "1xH200", "-i", "a", "--cluster", "b"), "--cluster is 'b'; allowed: either this or --inventory"),
        (("-n", "1xH200", "--cluster", "no.json"), "no.json: No such file"),
        (("-n", "1xH200", "-m", "Qwen3-32B", "--no-simulate", "--output", "/no/x"), "--output is '/no/x'; allowed: a"),
    ],
)
def test_bad_input_exits_with_2_and_names_field_given_and_allowed(args: tuple[str, ...], message: str) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_bad_input_is_json_too_where_json_is_asked_for() -> None:
    result = run("-n", "8xH100-SXM", "-m", "none", "--json")
    assert json.loads(result.stdout)["exit_code"] == result.exit_code == 2
    assert "none" in json.loads(result.stdout)["error"]


def test_the_script_is_the_same_command() -> None:
    argv = [sys.executable, str(PROJECT / "scripts" / "plan.py"), "-n", "1xH100-SXM", "-m", "nothing"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "model is 'nothing'" in done.stderr


@pytest.mark.parametrize(("name", "ranks", "kind"), [("Llama-3.1-8B", 1, "H100-SXM"), ("DeepSeek-V3", 8, "B200")])
def test_roles_accept_the_suggested_variables(name: str, ranks: int, kind: str) -> None:
    deployed = deployment(name, tensor_parallel=ranks)
    plan = assess(named_node(f"8x{kind}"), deployed, Measured(), Question(simulated=False))
    given = yaml.safe_load(as_yaml(plan))
    assert given == suggested(plan)
    known = variables.known_variables(PROJECT)
    assert variables.unknown("n", given, known, variables.prefixes(PROJECT)) == []
    assert variables.mistyped("n", given, {variable: known[variable] for variable in given}) == []
    assert variables.overridden("n", given, variables.mapped(PROJECT)) == []
    assert judge_cache("n", given) == []
    assert judge_drives("n", given["kvstrata_drives"]) == []


def test_the_suggested_dram_tier_passes_the_memory_budget() -> None:
    from kvstrata.preflight.memory import judge_memory

    plan = planned()
    wanted = {
        "engine": "kvrocks",
        "stores": len(plan.node.drives),
        "profile": "ssd_cache",
        "workers": 8,
        "config": {},
        "dram_cache_gib": suggested(plan)["kvstrata_dram_cache_gib"],
        "replicas": plan.replicas,
        "engine_memory_gib": None,
        "accelerator": "cuda",
        "tensor_parallel": 1,
        "cpu_kv_gib": 0,
    }
    total = int(plan.node.dram_gib.value * 2**30)
    assert judge_memory("n", wanted, total) == []
    assert judge_memory("n", {**wanted, "dram_cache_gib": plan.node.dram_gib.value}, total)


def test_drives_that_would_wear_out_get_a_policy_that_writes_less() -> None:
    busy = planned(question=Question(users=(1600,), thinks=(0.0,)))
    assert min(wear.years or 99 for wear in busy.wear) < 5
    assert suggested(busy)["lmcache_offload_policy"] == {"name": "second_use", "only_when_full": True}
    assert judge_cache("n", suggested(busy)) == []
    idle = planned(question=Question(users=(8,), thinks=(100_000.0,)))
    assert suggested(idle)["lmcache_offload_policy"] == {"name": "all"}
    assert "vllm_lmcache_recheck_s" not in suggested(idle)


def test_a_node_without_drives_gets_no_variables_for_them() -> None:
    bare = assess(replace(node(), drives=()), deployment(), Measured(), Question(simulated=False))
    assert suggested(planned()).keys() - suggested(bare).keys() == {
        "kvstrata_drives",
        "lmcache_min_load_gbps",
        "lmcache_offload_policy",
    }


def test_the_block_says_when_the_drives_are_too_slow() -> None:
    slow = "# The SSD tier hurts as planned"
    assert slow in as_yaml(planned(Measured(ssd_gbps=seen(1))))
    assert slow not in as_yaml(planned())


def test_an_inventory_gives_model_sizes_and_drives() -> None:
    found = from_cluster(cluster(kv_dtype="fp8", tensor_parallel=2), node(), None)
    made = found.deployment
    assert (found.node.gpus, [drive.name for drive in found.node.drives]) == (2, ["d0"])
    assert found.node.drives[0].store_gib == 1
    assert (made.shape.name, made.kv_dtype, made.tensor_parallel) == ("Llama-3.1-8B", "fp8", 2)
    assert (made.dram_cache_gib, made.min_load_gbps, made.write_policy) == (64, 3.5, {"name": "second_use"})
    assert "is taken for Llama-3.1-8B" in found.notes[0]


def test_a_site_without_gpus_is_suggested_none() -> None:
    found = from_cluster(cluster(), node(), None)
    plan = assess(found.node, found.deployment, Measured(), Question(simulated=False))
    assert (suggested(plan)["kvstrata_accelerator"], suggested(plan)["kvstrata_gpus"]) == ("cpu", 0)


def test_the_type_of_the_inventory_counts() -> None:
    found = from_cluster(cluster(dtype="float32"), node(), None)
    assert found.deployment.layout.stored_bytes_per_token == 2 * 131072
    assert found.deployment.shape.compute == "fp32"


def test_a_model_that_nobody_knows_has_to_be_given() -> None:
    with pytest.raises(BadInputError, match=r"kvstrata_model is 'mystery'; allowed: --model with its config.json"):
        from_cluster(cluster(name="mystery"), node(), None)


def test_a_config_in_the_models_folder_counts_before_the_name(tmp_path: Path) -> None:
    shape = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 8,
        "vocab_size": 9,
    }
    (tmp_path / "config.json").write_text(json.dumps(shape))
    found = from_cluster(cluster(path=str(tmp_path)), node(), None)
    assert found.deployment.shape.layers == 2
    assert found.notes == ()


def test_a_stand_in_is_not_taken_for_an_ssd_tier() -> None:
    document = copy.deepcopy(DOCUMENT)
    document["model"]["name"] = "llama-3.1-8b"
    document["nodes"][0]["stores"][0] |= {"engine": "redis", "tier": "dram"}
    notes = from_cluster(parse(document), node(), None).notes
    assert any(note.startswith("NOT AN SSD TIER") for note in notes)


def test_an_inventory_is_planned_through_its_document(tmp_path: Path) -> None:
    document = copy.deepcopy(DOCUMENT)
    document["model"] |= {"name": "llama-3.1-8b", "dtype": "bfloat16"}
    path = tmp_path / "cluster.json"
    path.write_text(json.dumps(document))
    result = run("--cluster", str(path), "-n", "1xH100-SXM", "--no-simulate", "--json")
    found = json.loads(result.stdout)
    assert [drive["name"] for drive in found["suggested"]["kvstrata_drives"]] == ["d0"]
    assert found["suggested"]["kvstrata_drives"][0]["store_gib"] == 1
