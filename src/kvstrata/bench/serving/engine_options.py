"""What `vllm serve` is given: the options and environment of the role vllm, and what a benchmark adds to them.

The role's own values are the first part of each function; tests/bench/serving/test_serving_options.py renders the role
and compares, so that what is measured is what is deployed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kvstrata.bench.serving.configurations import Accelerator, Configuration
from kvstrata.bench.serving.model import Json
from kvstrata.bench.sizes import GIB


@dataclass(frozen=True)
class ServedModel:
    """The model and how it is served. `load_format` of `dummy` needs no weights."""

    name: str
    path: str
    dtype: str = "auto"
    kv_dtype: str = "auto"
    max_model_len: int = 8192
    tensor_parallel: int = 1
    load_format: str = "auto"
    revision: str = "unknown"


@dataclass(frozen=True)
class EnginePlace:
    """Where one engine listens, and the processors and GPUs that it has."""

    port: int
    host: str = "127.0.0.1"
    lmcache_port: int = 5555
    gpus: tuple[int, ...] = ()
    cpu_threads: int = 2
    cpu_kv_gib: int = 1


# roles/vllm/vars: _vllm_accelerator_options.
ACCELERATOR_OPTIONS: Mapping[Accelerator, Mapping[str, Json]] = {
    "cpu": {"enforce-eager": True, "max-num-seqs": 8},
    "cuda": {},
}


RECHECK_S = 30
"""vllm_lmcache_recheck_s of roles/vllm."""
RECHECK_OPTION = "kvstrata.recheck_s"
ASK_CHUNKS = 2
"""vllm_lmcache_ask_chunks of roles/vllm."""
ASK_OPTION = "kvstrata.ask_chunks"
ANSWER_MS = 0
"""vllm_lmcache_answer_ms of roles/vllm."""
ANSWER_OPTION = "kvstrata.answer_ms"
ASKING: dict[str, Json] = {RECHECK_OPTION: RECHECK_S, ASK_OPTION: ASK_CHUNKS, ANSWER_OPTION: ANSWER_MS}
"""What the role tells the connector of when it asks LMCache."""


def role_options(model: ServedModel, place: EnginePlace, accelerator: Accelerator, lmcache: bool) -> dict[str, Json]:
    """Return the options as roles/vllm renders them into /etc/kvstrata/vllm/N.yaml, but for the port."""
    options: dict[str, Json] = {
        "model": model.path,
        "served-model-name": [model.name],
        "host": place.host,
        "dtype": model.dtype,
        "kv-cache-dtype": model.kv_dtype,
        "max-model-len": model.max_model_len,
        "tensor-parallel-size": model.tensor_parallel,
        **ACCELERATOR_OPTIONS[accelerator],
    }
    if lmcache:
        options["kv-transfer-config"] = json.dumps(kv_transfer(place.lmcache_port))
    return options


def kv_transfer(lmcache_port: int) -> dict[str, Json]:
    """Return the connector to the node's LMCache, as the role sets it."""
    return {
        "kv_connector": "LMCacheMPConnector",
        "kv_connector_module_path": "kvstrata.node.hbm_first",
        "kv_role": "kv_both",
        "kv_load_failure_policy": "recompute",
        "kv_connector_extra_config": {
            "lmcache.mp.host": "tcp://127.0.0.1",
            "lmcache.mp.port": lmcache_port,
            "lmcache.mp.mq_timeout": 10,
            "lmcache.mp.heartbeat_interval": 5,
            **ASKING,
        },
    }


def asking(transfer: Json, configuration: Configuration) -> Json:
    """Return a kv-transfer-config (JSON) with what a configuration says of asking LMCache."""
    wanted = {
        RECHECK_OPTION: configuration.recheck_s,
        ASK_OPTION: configuration.ask_chunks,
        ANSWER_OPTION: configuration.answer_ms,
    }
    changed = {name: value for name, value in wanted.items() if value is not None}
    if not changed:
        return transfer
    told = json.loads(str(transfer))
    told["kv_connector_extra_config"] = {**told.get("kv_connector_extra_config", {}), **changed}
    return json.dumps(told)


def role_environment(place: EnginePlace, accelerator: Accelerator) -> dict[str, str]:
    """Return the environment as roles/vllm renders it into the unit."""
    common = {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "LMCACHE_DISABLE_BANNER": "1",
        "LMCACHE_TRACK_USAGE": "false",
        "PYTHONUNBUFFERED": "1",
    }
    if accelerator == "cuda":
        return common
    return common | {
        "VLLM_CPU_KVCACHE_SPACE": str(place.cpu_kv_gib),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(place.cpu_threads),
        "TORCHDYNAMO_DISABLE": "1",
    }


def options(
    configuration: Configuration, model: ServedModel, place: EnginePlace, accelerator: Accelerator
) -> dict[str, Json]:
    """Return everything that `vllm serve --config` is given for a configuration."""
    found = role_options(model, place, accelerator, lmcache=configuration.cache == "lmcache")
    if "kv-transfer-config" in found:
        found["kv-transfer-config"] = asking(found["kv-transfer-config"], configuration)
    found |= changes(configuration)
    found |= {"port": place.port}
    if model.load_format != "auto":
        found["load-format"] = model.load_format
    return found


def changes(configuration: Configuration) -> dict[str, Json]:
    """Return what a configuration changes in the options of an engine, wherever that is."""
    # Without it an answer does not tell how many of its prompt's tokens were cached.
    found: dict[str, Json] = {"enable-prompt-tokens-details": True}
    if configuration.cache == "native":
        found["kv-offloading-size"] = configuration.l1_gib
        found["kv-offloading-backend"] = "native"
    if configuration.cache == "lmcache-in-process":
        found["kv-transfer-config"] = json.dumps({"kv_connector": "LMCacheConnectorV1", "kv_role": "kv_both"})
    if configuration.hbm_gib is not None:
        found["kv-cache-memory-bytes"] = round(configuration.hbm_gib * GIB)
    return {**found, **configuration.engine}


def environment(
    configuration: Configuration, place: EnginePlace, accelerator: Accelerator, redis_url: str | None = None
) -> dict[str, str]:
    """Return the environment of an engine; `redis_url` is the store of LMCache in the engine.

    On CPU an engine's KV is a whole number of GiB only in the environment; with hbm_gib the option has it.
    """
    found = role_environment(place, accelerator) | environment_changes(configuration, redis_url)
    if configuration.hbm_gib is not None:
        found.pop("VLLM_CPU_KVCACHE_SPACE", None)
    return found | visible(place.gpus)


def visible(gpus: Sequence[int]) -> dict[str, str]:
    """Return the environment in which CUDA sees those GPUs alone, by nvidia-smi's numbers; nothing for none."""
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus))} if gpus else {}


def environment_changes(configuration: Configuration, redis_url: str | None = None) -> dict[str, str]:
    """Return what a configuration adds to the environment of an engine, wherever that is."""
    # It opens /reset_prefix_cache, without which the GPU tier cannot be emptied.
    found = {"VLLM_SERVER_DEV_MODE": "1"}
    if configuration.cache == "lmcache-in-process":
        found |= {
            "LMCACHE_CHUNK_SIZE": str(configuration.chunk_tokens),
            "LMCACHE_LOCAL_CPU": "True",
            "LMCACHE_MAX_LOCAL_CPU_SIZE": str(configuration.l1_gib),
        }
        if redis_url:
            found |= {"LMCACHE_REMOTE_URL": redis_url, "LMCACHE_REMOTE_SERDE": "naive"}
    return {**found, **configuration.environment}


# roles/router/vars: _router_cache_flags, and of _router_kv_flags what does not name a replica.
ROUTER_POLICY_FLAGS: Mapping[str, Mapping[str, Json]] = {
    "cache_aware": {"--cache-threshold": 0.7, "--balance-abs-threshold": 16, "--balance-rel-threshold": 2.0},
    "kv_aware": {"--kv-aware-session-affinity-ttl-secs": 600},
}

ROUTER_POLICY = "cache_aware"
"""router_policy of roles/router."""
POLICIES_WITHOUT_EVENTS = (ROUTER_POLICY, "round_robin", "random", "power_of_two")
"""Of those of roles/router, what needs no KV events of the replicas."""
POLICIES_THAT_KEEP = (ROUTER_POLICY, "kv_aware", "kv")
"""Those that send a conversation where it was: of vllm-router, and of a Dynamo frontend."""


def router_flags(host: str, port: int, metrics_port: int, policy: str = ROUTER_POLICY) -> dict[str, Json]:
    """Return the flags of vllm-router as roles/router renders them, but for the replicas' KV events."""
    return {
        "--host": host,
        "--port": port,
        "--policy": policy,
        "--prometheus-host": "127.0.0.1",
        "--prometheus-port": metrics_port,
        "--log-level": "info",
        "--worker-startup-timeout-secs": 900,
        "--worker-startup-check-interval": 2,
        "--health-check-interval-secs": 2,
        "--health-check-timeout-secs": 5,
        "--health-failure-threshold": 3,
        "--health-success-threshold": 1,
        "--retry-max-retries": 5,
        "--retry-initial-backoff-ms": 50,
        "--retry-max-backoff-ms": 2000,
        "--cb-failure-threshold": 5,
        "--cb-success-threshold": 1,
        "--cb-timeout-duration-secs": 5,
        "--cb-window-duration-secs": 30,
        "--request-timeout-secs": 1800,
        **ROUTER_POLICY_FLAGS.get(policy, {}),
    }
