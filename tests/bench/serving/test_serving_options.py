"""What is measured is what the roles deploy: the options of both are rendered and compared."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import filter_loader, init_plugin_loader
from ansible.template import Templar, trust_as_template

from kvstrata.bench.serving import cache_options, engine_options, sweep
from kvstrata.bench.serving.cache_options import StorePlace
from kvstrata.bench.serving.configurations import PRESETS, Accelerator, Configuration, Sizes, preset
from kvstrata.bench.serving.engine_options import EnginePlace, ServedModel
from kvstrata.bench.serving.site_stack import engine_file
from kvstrata.l2.config import MIB, TierConfig
from kvstrata.paths import PROJECT

MODEL = ServedModel("m", "/srv/m", dtype="bfloat16", max_model_len=10000)
PLACE = EnginePlace(port=8000, lmcache_port=5555)
STORES = [StorePlace("127.0.0.1", 6666, 12.0), StorePlace("127.0.0.1", 6667, 12.0)]


@functools.cache
def with_our_plugins() -> None:
    init_plugin_loader()
    filter_loader.add_directory(str(PROJECT / "plugins" / "filter"))


def role(name: str, expression: str, **own: Any) -> Any:
    with_our_plugins()
    loader = DataLoader()
    variables: dict[str, Any] = {"inventory_hostname": "local"}
    for path in ("defaults", "vars"):
        variables |= loader.load_from_file(str(PROJECT / "roles" / name / path / "main.yml"), trusted_as_template=True)
    templar = Templar(loader=loader, variables=variables | own)
    return templar.template(trust_as_template("{{ " + expression + " }}"))


def vllm(expression: str, accelerator: str, **own: Any) -> Any:
    model = {"name": "m", "path": "/srv/m", "dtype": "bfloat16", "max_model_len": 10000}
    return role("vllm", expression, vllm_model=model, vllm_bind="127.0.0.1", vllm_accelerator=accelerator, **own)


def decoded(options: dict[str, Any]) -> dict[str, Any]:
    if "kv-transfer-config" not in options:
        return options
    return {**options, "kv-transfer-config": json.loads(options["kv-transfer-config"])}


@pytest.mark.parametrize("accelerator", ["cpu", "cuda"])
@pytest.mark.parametrize("lmcache", [True, False])
def test_engines_have_the_options_of_the_role(accelerator: Accelerator, lmcache: bool) -> None:
    deployed = dict(vllm("_vllm_replica_config", accelerator, vllm_lmcache=lmcache, item={"id": 0, "port": 8000}))
    assert deployed.pop("port") == 8000
    assert decoded(engine_options.role_options(MODEL, PLACE, accelerator, lmcache)) == decoded(deployed)


@pytest.mark.parametrize("accelerator", ["cpu", "cuda"])
def test_engines_have_the_environment_of_the_role(accelerator: Accelerator) -> None:
    deployed = {name: str(value) for name, value in vllm("_vllm_environment", accelerator).items()}
    assert engine_options.role_environment(PLACE, accelerator) == deployed


def test_the_daemon_has_the_flags_of_the_role() -> None:
    deployed = role("lmcache", "_lmcache_flags", lmcache_l1_size_gib=4.0)
    assert cache_options.role_flags(4.0, 256, 5555, 8090) == deployed


def test_kvstrata_l2_is_told_what_the_role_tells_it() -> None:
    identity = {"model": "m"}
    stores = [{"host": s.host, "port": s.port, "node": s.node, "capacity_gib": s.capacity_gib} for s in STORES]
    deployed = role("lmcache", "_lmcache_l2", lmcache_identity=identity, lmcache_stores=stores)
    assert cache_options.role_l2(identity, deployed["namespace"], "local", STORES, 0) == deployed


@pytest.mark.parametrize("policy", ["cache_aware", "kv_aware", "round_robin"])
def test_the_router_of_several_engines_has_the_flags_of_the_role(policy: str) -> None:
    own = {"router_bind": "127.0.0.1", "router_port": 9000, "router_metrics_port": 9100, "router_workers": []}
    deployed = role("router", "_router_arguments", router_policy=policy, **own)
    of_replicas = ("--kv-event-source", "--kv-event-replay-source", "--kv-event-block-size", "--kv-event-model")
    deployed = {flag: value for flag, value in deployed.items() if flag not in of_replicas}
    assert engine_options.router_flags("127.0.0.1", 9000, 9100, policy) == deployed


def test_the_default_policy_is_the_roles() -> None:
    defaults = yaml.safe_load((PROJECT / "roles" / "router" / "defaults" / "main.yml").read_text())
    assert engine_options.router_flags("h", 1, 2)["--policy"] == defaults["router_policy"]


def test_stores_have_the_workers_and_the_allocator_of_the_role() -> None:
    defaults = yaml.safe_load((PROJECT / "roles" / "kvrocks" / "defaults" / "main.yml").read_text())
    profile = defaults["kvrocks_profile"]
    assert Configuration("x").kvrocks_profile == profile
    assert cache_options.kvrocks(profile)["workers"] == str(defaults["kvrocks_workers"])
    assert cache_options.kvrocks_environment(profile) == {"MALLOC_CONF": defaults["kvrocks_malloc_conf"]}


def test_the_block_and_the_piece_that_nothing_varies_are_those_of_the_tier() -> None:
    tier = TierConfig.from_dict({"namespace": "n", "endpoints": [{"host": "h", "port": 1, "capacity_bytes": 1}]})
    assert Configuration("x").piece_bytes == tier.piece_bytes == MIB
    assert Configuration("x").connections == tier.load_connections


# --- what a configuration changes ---


def made(name: str, accelerator: Accelerator = "cuda", hbm_gib: float | None = None) -> dict[str, Any]:
    configuration = preset(name, Sizes(hbm_gib=hbm_gib, dram_gib=6.0))
    return engine_options.options(configuration, MODEL, PLACE, accelerator)


def asking(options: dict[str, Any]) -> tuple[object, object, object]:
    told = decoded(options)["kv-transfer-config"]["kv_connector_extra_config"]
    return told.get("kvstrata.recheck_s"), told.get("kvstrata.ask_chunks"), told.get("kvstrata.answer_ms")


def test_lmcache_is_asked_as_the_role_says_unless_a_variant_says_otherwise() -> None:
    base = preset("dram", Sizes(dram_gib=6.0))
    _, always, any_chunk, at_once = sweep.variants(base, sweep.parse(["recheck_s=0", "ask_chunks=1", "answer_ms=0.5"]))
    role = engine_options.RECHECK_S, engine_options.ASK_CHUNKS, engine_options.ANSWER_MS
    assert asking(engine_options.options(base, MODEL, PLACE, "cuda")) == role
    assert asking(engine_options.options(always, MODEL, PLACE, "cuda")) == (0, *role[1:])
    assert asking(engine_options.options(any_chunk, MODEL, PLACE, "cuda")) == (role[0], 1, role[2])
    assert asking(engine_options.options(at_once, MODEL, PLACE, "cuda")) == (*role[:2], 0.5)
    # On a node of a site what is deployed stays, but for that.
    deployed = {"kv-transfer-config": json.dumps({"kv_connector_extra_config": {"kvstrata.recheck_s": 5, "a": 1}})}
    assert asking(engine_file(deployed, base)) == (5, None, None)
    assert asking(engine_file(deployed, any_chunk)) == (5, 1, None)
    assert decoded(engine_file(deployed, always))["kv-transfer-config"] == {
        "kv_connector_extra_config": {"kvstrata.recheck_s": 0, "a": 1}
    }


def test_vllm_alone_has_no_connector_and_no_offloading() -> None:
    options = made("none")
    assert "kv-transfer-config" not in options
    assert "kv-offloading-size" not in options


def test_native_is_vllms_own_offloading_of_the_same_dram() -> None:
    options = made("native")
    assert (options["kv-offloading-size"], options["kv-offloading-backend"]) == (6.0, "native")
    assert "kv-transfer-config" not in options


def test_the_proof_of_concept_has_lmcache_in_the_engine_and_redis_py_as_its_client() -> None:
    configuration = preset("poc", Sizes(dram_gib=6.0))
    options = engine_options.options(configuration, MODEL, PLACE, "cuda")
    environment = engine_options.environment(configuration, PLACE, "cuda", "redis://127.0.0.1:6666?protocol=2")
    assert json.loads(str(options["kv-transfer-config"]))["kv_connector"] == "LMCacheConnectorV1"
    assert environment["LMCACHE_CHUNK_SIZE"] == "1024"
    assert environment["LMCACHE_REMOTE_URL"] == "redis://127.0.0.1:6666?protocol=2"
    assert environment["LMCACHE_MAX_LOCAL_CPU_SIZE"] == "6.0"


@pytest.mark.parametrize("name", PRESETS)
def test_every_engine_may_be_emptied_and_tells_what_was_cached(name: str) -> None:
    configuration = preset(name, Sizes())
    assert engine_options.environment(configuration, PLACE, "cuda")["VLLM_SERVER_DEV_MODE"] == "1"
    assert made(name)["enable-prompt-tokens-details"] is True


def test_a_cap_of_the_kv_is_exact_on_cpu_too() -> None:
    configuration = preset("dram", Sizes(hbm_gib=0.25))
    assert made("dram", "cpu", 0.25)["kv-cache-memory-bytes"] == 268435456
    assert "VLLM_CPU_KVCACHE_SPACE" not in engine_options.environment(configuration, PLACE, "cpu")


def test_without_a_cap_the_kv_is_the_roles() -> None:
    assert "kv-cache-memory-bytes" not in made("dram", "cpu")
    assert engine_options.environment(preset("dram", Sizes()), PLACE, "cpu")["VLLM_CPU_KVCACHE_SPACE"] == "1"


def test_what_a_configuration_says_of_the_engine_wins() -> None:
    configuration = replace(preset("none", Sizes()), engine={"max-num-seqs": 4}, environment={"OMP_NUM_THREADS": "1"})
    assert engine_options.options(configuration, MODEL, PLACE, "cpu")["max-num-seqs"] == 4
    assert engine_options.environment(configuration, PLACE, "cpu")["OMP_NUM_THREADS"] == "1"


def test_an_engine_sees_its_own_gpus_only() -> None:
    place = replace(PLACE, gpus=(2, 3))
    assert engine_options.environment(preset("none", Sizes()), place, "cuda")["CUDA_VISIBLE_DEVICES"] == "2,3"


def server(configuration: Configuration) -> dict[str, Any]:
    return dict(cache_options.server(configuration, 5555, 8090, STORES, "bench-1", {"model": "m"}))


def test_dram_alone_has_no_stores() -> None:
    found = server(preset("dram", Sizes(dram_gib=6.0)))
    assert found["l2"] is None
    assert found["flags"]["--l1-size-gb"] == 6.0
    assert "--l2-adapter" not in found["flags"]


def test_ssd_has_the_stores_and_no_more_dram_than_it_stages_through() -> None:
    found = server(preset("ssd", Sizes(dram_gib=6.0, staging_gib=0.5)))
    assert found["flags"]["--l1-size-gb"] == 0.5
    assert [endpoint["port"] for endpoint in found["l2"]["endpoints"]] == [6666, 6667]


def test_resp_has_lmcaches_own_adapter_on_one_store() -> None:
    found = server(preset("resp", Sizes()))
    adapter = json.loads(found["flags"]["--l2-adapter"])
    assert (adapter["type"], adapter["port"], adapter["num_workers"]) == ("resp", 6666, 8)
    assert found["l2"] is None


def test_piece_connections_and_break_even_reach_kvstrata_l2() -> None:
    configuration = replace(preset("ssd", Sizes()), piece_bytes=4 * MIB, connections=2, min_load_gbps=1.5)
    found = server(configuration)["l2"]
    assert (found["piece_bytes"], found["load_connections"], found["min_load_gbps"]) == (4 * MIB, 2, 1.5)


def test_a_field_that_kvstrata_l2_does_not_know_is_refused_with_its_name() -> None:
    with pytest.raises(ValueError, match="stripes is unknown; allowed: "):
        server(replace(preset("ssd", Sizes()), l2={"stripes": 2}))


def test_the_proof_of_concepts_stores_are_not_tuned() -> None:
    found = cache_options.kvrocks("poc")
    assert found["rocksdb.compression"] == "lz4"
    assert "rocksdb.enable_blob_files" not in found
    assert cache_options.kvrocks_environment("poc") == {}
