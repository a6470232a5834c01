"""What the services of a stack count, read before and after each phase, and where the prompt tokens came from by that.

Counters are kept by source: `vllm:N` and `lmcache` (their /metrics), `l2` (kvstrata.l2's part of LMCache's /metrics),
`kvrocks:HOST:PORT` (INFO), `process:NAME` (/proc) and `gpu:N` (nvidia-smi, sampled). Each has the service's own name;
labels that tell one series from another stay in it, sorted: `lmcache_mp_transfer_phase_elapsed_seconds_sum{phase=...}`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from kvstrata.bench.serving.model import Counters, RequestSample, TierTokens
from kvstrata.verify import prometheus

# Labels that are the same in every series of a service, and so tell nothing.
_SAME = frozenset({"engine", "model_name", "instance", "instance_id", "pid", "otel_scope_name", "otel_scope_version"})
_GAUGES = ("vllm:kv_cache_usage_perc", "vllm:num_requests_running", "vllm:num_requests_waiting")
_L2 = "kvstrata_l2_"
_L2_GAUGES = ("up", "used_bytes", "capacity_bytes", "queued_bytes", "load_bytes_per_s", "break_even")
# Of an answer's prompt tokens; beyond it the counters and the clients do not tell the same story.
_TOLERANCE = 0.01


def from_vllm(text: str) -> dict[str, float]:
    """Return the counters of an engine's /metrics (without the buckets of its histograms), and what is in use now.

    kv_capacity_tokens: what its KV cache holds, from the labels of vllm:cache_config_info.
    """
    # `lmcache:` are those of LMCache inside the engine.
    rows = [row for row in prometheus.parse(text).rows if row[0].startswith(("vllm:", "lmcache:"))]
    found = _named((row for row in rows if _counts(row[0]) or row[0] in _GAUGES), "")
    for name, labels, _ in rows:
        # Where the engine does not know it yet, they are "None".
        if name == "vllm:cache_config_info" and f"{labels.get('num_gpu_blocks')}{labels.get('block_size')}".isdigit():
            found["kv_capacity_tokens"] = float(labels["num_gpu_blocks"]) * float(labels["block_size"])
    return found


def from_lmcache(text: str) -> dict[str, float]:
    """Return the counters of LMCache's /metrics."""
    rows = [row for row in prometheus.parse(text).rows if row[0].startswith("lmcache_")]
    return _named((row for row in rows if _counts(row[0]) or row[0].endswith("_usage_bytes")), "")


def from_l2(text: str) -> dict[str, float]:
    """Return kvstrata.l2's counters, gauges and histograms of stages, without the prefix `kvstrata_l2_`."""
    rows = [row for row in prometheus.parse(text).rows if row[0].startswith(_L2)]
    gauges = {_L2 + name for name in _L2_GAUGES}
    return _named((row for row in rows if _counts(row[0]) or row[0].endswith("_bucket") or row[0] in gauges), _L2)


def from_info(text: str) -> dict[str, float]:
    """Return every number of an INFO reply of Kvrocks or Redis."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        try:
            found[name] = float(value)
        except ValueError:
            continue
    return found


def difference(before: Counters, after: Counters, source: str, name: str) -> float:
    """Return how much was counted, over all series of that name; one that is not there has counted nothing."""
    return total(after.get(source, {}), name) - total(before.get(source, {}), name)


def total(values: Mapping[str, float], name: str) -> float:
    """Return the sum over all series of a name, whatever labels tell them apart."""
    return sum(value for key, value in values.items() if key == name or key.startswith(f"{name}{{"))


def tier_tokens(before: Counters, after: Counters, *, lmcache: bool) -> TierTokens | None:
    """Return where the prompt tokens came from; None where no engine counted.

    An engine counts what it computed, what its own prefix cache had, and what a connector brought. LMCache says how
    many of a lookup's tokens only L2 had: they follow what L1 had, so they are those that the engine lacked, but for
    what the engine's own cache held of them as well. l2 is therefore the smaller of both counts.
    """
    engines = [source for source in after if source.startswith("vllm:")]
    if not engines:
        return None

    def tokens(source: str) -> int:
        name = f"vllm:prompt_tokens_by_source_total{{source={source}}}"
        return round(sum(difference(before, after, engine, name) for engine in engines))

    external = tokens("external_kv_transfer")
    l2 = 0
    if lmcache:
        l2 = min(external, round(difference(before, after, "lmcache", "lmcache_mp_lookup_hit_l2_tokens_total")))
    return TierTokens(hbm=tokens("local_cache_hit"), l1=external - l2, l2=l2, computed=tokens("local_compute"))


def disagreement(tiers: TierTokens | None, samples: Sequence[RequestSample]) -> str | None:
    """Return in what the tiers' tokens and the prompts that were answered differ; None where they agree."""
    if tiers is None:
        return "no engine counted its prompt tokens: where they came from is not known"
    counted = sum(part or 0 for part in (tiers.hbm, tiers.l1, tiers.l2, tiers.computed))
    sent = sum(sample.prompt_tokens for sample in samples if sample.ok)
    if abs(counted - sent) <= _TOLERANCE * max(sent, 1):
        return None
    failed = sum(not sample.ok for sample in samples)
    return (
        f"the tiers' tokens do not add up: the engines counted {counted} prompt tokens, the {len(samples) - failed} "
        f"answered requests had {sent}" + (f" ({failed} failed ones may have been counted)" if failed else "")
    )


def preemptions(before: Counters, after: Counters) -> str | None:
    """Return a note where engines preempted requests: their prompts were computed or loaded more than once."""
    engines = [source for source in after if source.startswith("vllm:")]
    count = round(sum(difference(before, after, engine, "vllm:num_preemptions_total") for engine in engines))
    return f"{count} preemptions: the KV cache was too small for what ran at once" if count else None


def unsettled(values: Mapping[str, float]) -> int:
    """Return how many batches of chunks LMCache handed to its stores and did not hear of yet; `values` are LMCache's.

    Batches, for a chunk that was not stored is counted nowhere, and would be awaited for ever.
    """
    handed, ended = (
        total(values, f"lmcache_mp_l2_store_{event}_requests_total") for event in ("submitted", "completed")
    )
    return round(handed - ended)


def _counts(name: str) -> bool:
    return name.endswith(("_total", "_sum", "_count"))


def _named(rows: Iterable[tuple[str, Mapping[str, str], float]], prefix: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, labels, value in rows:
        telling = ",".join(f"{key}={labels[key]}" for key in sorted(labels) if labels[key] and key not in _SAME)
        key = name.removeprefix(prefix) + (f"{{{telling}}}" if telling else "")
        found[key] = found.get(key, 0.0) + value
    return found
