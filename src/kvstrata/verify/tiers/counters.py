"""The counters of an engine and of its node's LMCache that tell where a prompt's tokens came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from kvstrata.verify.http import Service
from kvstrata.verify.prometheus import Samples


@dataclass(frozen=True)
class Counters:
    """One reading, or the difference of two. Everything is in tokens unless its name says else."""

    requests: float
    external_queries: float
    external_hits: float
    computed: float
    local_hits: float
    transferred: float
    l1_hits: float
    l2_hits: float
    l2_loaded_chunks: float
    l2_submitted_chunks: float
    l2_completed_chunks: float

    def __sub__(self, other: Counters) -> Counters:
        """What was counted since `other`."""
        return Counters(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))


def read(engine: Service, lmcache: Service, model: str) -> Counters:
    """Read both; raises UnansweredError when one of them gives no metrics."""
    vllm, cache = engine.metrics(), lmcache.metrics()

    def tokens_from(source: str) -> float:
        return vllm.total("vllm:prompt_tokens_by_source_total", model_name=model, source=source)

    return Counters(
        requests=vllm.total("vllm:request_success_total", model_name=model),
        external_queries=vllm.total("vllm:external_prefix_cache_queries_total", model_name=model),
        external_hits=vllm.total("vllm:external_prefix_cache_hits_total", model_name=model),
        computed=tokens_from("local_compute"),
        local_hits=tokens_from("local_cache_hit"),
        transferred=tokens_from("external_kv_transfer"),
        l1_hits=cache.total("lmcache_mp_lookup_hit_l1_tokens_total"),
        l2_hits=cache.total("lmcache_mp_lookup_hit_l2_tokens_total"),
        l2_loaded_chunks=cache.total("lmcache_mp_l2_prefetch_load_completed_chunks_total"),
        l2_submitted_chunks=cache.total("lmcache_mp_l2_store_submitted_objects_chunks_total"),
        l2_completed_chunks=cache.total("lmcache_mp_l2_store_completed_objects_chunks_total"),
    )


def troubles(metrics: Samples) -> dict[str, float]:
    """What kvstrata.l2 in LMCache has counted that costs a hit: of loads, and of each store. Empty for others."""
    found = {}
    for name, labels, value in metrics.rows:
        if name == "kvstrata_l2_endpoint_events_total":
            found[f"{labels.get('endpoint')} {labels.get('event')}"] = value
        elif name == "kvstrata_l2_events_total" and labels.get("event", "").startswith("load_"):
            found[labels["event"]] = value
        elif name == "kvstrata_l2_break_even_cut_chunks_total":
            found["cut by break-even"] = value
        elif name == "kvstrata_l2_break_even_unasked_total":
            found["lookups that break-even kept from the stores"] = value
        elif name == "kvstrata_l2_events_total" and labels.get("event") == "lookup_late":
            found["lookups that stores answered too late"] = value
    return found


def told(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    """What was counted between two of these, as a reader wants it."""
    if not after:
        return "its adapter counts no faults"
    grown = {name: value - before.get(name, 0) for name, value in after.items() if value > before.get(name, 0)}
    counted = ", ".join(f"{name}: {count:.0f}" for name, count in sorted(grown.items()))
    return f"kvstrata.l2 counted meanwhile: {counted}" if counted else "kvstrata.l2 counted no fault meanwhile"
