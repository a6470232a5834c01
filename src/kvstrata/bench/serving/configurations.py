"""The configurations that `bench serve` compares: named, pure data, and what may be varied in them.

What they become on the command lines is in engine_options.py and cache_options.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving.model import Json
from kvstrata.bench.sizes import KIB, MIB

Cache = Literal["none", "native", "lmcache", "lmcache-in-process"]
StoreClient = Literal["none", "kvstrata", "resp", "redis-py"]
Accelerator = Literal["cpu", "cuda"]

# vLLM's default size of a block (its unit of prefix hits) in tokens; LMCache's chunk must be a multiple of it.
BLOCK_TOKENS: Mapping[Accelerator, int] = {"cpu": 128, "cuda": 16}


@dataclass(frozen=True)
class Configuration:
    """One way to serve. Sizes in GiB are for the whole node, hbm_gib for each engine."""

    name: str
    cache: Cache = "none"
    """What keeps KV outside the GPU: nothing, vLLM's own offloading, LMCache's daemon, or LMCache in the engine."""
    l1_gib: float = 0.0
    """DRAM for it."""
    stores: StoreClient = "none"
    """Which client puts it into Kvrocks."""
    chunk_tokens: int = 256
    """LMCache's unit."""
    piece_bytes: int = MIB
    """kvstrata.l2's unit."""
    connections: int = 0
    """Connections to a store for loads: kvstrata.l2's load_connections (0: its default), resp's num_workers (0: 8)."""
    hbm_gib: float | None = None
    """KV bytes of an engine; None leaves it to vLLM."""
    min_load_gbps: float = 0.0
    """kvstrata.l2's break-even; 0 is off."""
    recheck_s: int | None = None
    """For how long LMCache is not asked again about what HBM has: vllm_lmcache_recheck_s; None: as it is deployed."""
    ask_chunks: int | None = None
    """How much HBM must lack for LMCache to be asked about it: vllm_lmcache_ask_chunks; None: as it is deployed."""
    answer_ms: float | None = None
    """How long a step waits for LMCache's answers, all together: vllm_lmcache_answer_ms; None: as it is deployed."""
    engine: Mapping[str, Json] = field(default_factory=dict)
    """More options of `vllm serve`, by their long names without dashes."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """More environment variables of the engines."""
    l2: Mapping[str, Json] = field(default_factory=dict)
    """More fields of kvstrata.l2's TierConfig."""
    kvrocks_profile: str = "ssd_cache"
    """The role's profile; `poc`: what the proof of concept set, with Kvrocks' defaults for the rest."""

    def to_json(self) -> dict[str, Json]:
        """Return every field."""
        return asdict(self)


@dataclass(frozen=True)
class Sizes:
    """What the presets have in common, in GiB."""

    hbm_gib: float | None = None
    dram_gib: float = 4.0
    staging_gib: float = 1.0
    """L1 of `ssd`: LMCache moves everything through it, so it cannot be none."""
    min_load_gbps: float = 0.0
    """kvstrata.l2's break-even, in those that use it."""


POC = "poc"
_POC_CHUNK_TOKENS = 1024


def _presets(sizes: Sizes) -> dict[str, Configuration]:
    alone = Configuration("none", hbm_gib=sizes.hbm_gib)
    dram = replace(alone, name="dram", cache="lmcache", l1_gib=sizes.dram_gib)
    tiered = replace(dram, name="dram+ssd", stores="kvstrata", min_load_gbps=sizes.min_load_gbps)
    found = [
        alone,
        replace(alone, name="native", cache="native", l1_gib=sizes.dram_gib),
        dram,
        tiered,
        replace(tiered, name="ssd", l1_gib=sizes.staging_gib),
        replace(dram, name="resp", stores="resp"),
        replace(
            dram,
            name=POC,
            cache="lmcache-in-process",
            stores="redis-py",
            chunk_tokens=_POC_CHUNK_TOKENS,
            kvrocks_profile=POC,
        ),
    ]
    return {configuration.name: configuration for configuration in found}


PRESETS = tuple(_presets(Sizes()))
"""The names of the presets."""
REFERENCE = "none"
"""The one that the others are compared with."""


def preset(name: str, sizes: Sizes) -> Configuration:
    """Return a preset.

    Raises:
        BenchError: there is none of that name.
    """
    found = _presets(sizes).get(name)
    if found is None:
        raise BenchError(f"--configurations names {name!r}; allowed: {', '.join(PRESETS)}")
    return found


def refusal(configuration: Configuration, accelerator: Accelerator, block_tokens: int | None = None) -> str | None:
    """Return why a configuration cannot run on that accelerator, None if it can."""
    if accelerator == "cpu" and configuration.cache == "native":
        # vllm 0.31, v1/kv_offload/cpu/spec.py, get_worker.
        return "vLLM's own offloading needs a GPU: its worker refuses CPU builds"
    if accelerator == "cpu" and configuration.cache == "lmcache-in-process":
        # lmcache 0.5.6: "No supported cpu connector found".
        return "LMCache inside the engine (LMCacheConnectorV1) needs a GPU: it has no connector for CPU builds"
    block = block_tokens or BLOCK_TOKENS[accelerator]
    if configuration.cache.startswith("lmcache") and configuration.chunk_tokens % block:
        return f"chunk_size is {configuration.chunk_tokens}; allowed: a multiple of the engine's block, {block} tokens"
    return None


def problems(configuration: Configuration) -> list[str]:
    """Return what cannot be meant: name, what was given, what is allowed."""
    rules = (
        ("chunk_size", configuration.chunk_tokens, configuration.chunk_tokens > 0, "1 token or more"),
        ("piece_size", configuration.piece_bytes, 4 * KIB <= configuration.piece_bytes <= 64 * MIB, "4KiB to 64MiB"),
        ("connections", configuration.connections, 0 <= configuration.connections <= 64, "1 to 64, or 0"),
        ("hbm_gib", configuration.hbm_gib, configuration.hbm_gib is None or configuration.hbm_gib > 0, "more than 0"),
        ("dram_gib", configuration.l1_gib, configuration.l1_gib > 0 or configuration.cache == "none", "more than 0"),
        ("min_load_gbps", configuration.min_load_gbps, configuration.min_load_gbps >= 0, "0 (off) or more"),
        ("recheck_s", configuration.recheck_s, (configuration.recheck_s or 0) >= 0, "0 (ask always) or more"),
        ("ask_chunks", ask := configuration.ask_chunks, ask is None or ask > 0, "1 or more"),
        ("answer_ms", configuration.answer_ms, 0 <= (configuration.answer_ms or 0) <= 50, "0 to 50"),
    )
    return [
        f"{configuration.name}: {name} is {given}; allowed: {allowed}" for name, given, ok, allowed in rules if not ok
    ]


def with_engine(configuration: Configuration, options: Mapping[str, Json]) -> Configuration:
    """Return the configuration with more options of the engine, over which its own win."""
    return replace(configuration, engine={**options, **configuration.engine})
