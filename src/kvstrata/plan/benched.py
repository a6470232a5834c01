"""What a run of `kvstrata bench serve` says: the hardware and settings to plan with, and what was measured there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from kvstrata.bench.serving import counters, figures
from kvstrata.bench.serving.configurations import REFERENCE
from kvstrata.bench.serving.figures import Row
from kvstrata.bench.serving.model import Counters, Phase
from kvstrata.bench.serving.record import Record
from kvstrata.plan.config_json import parse_config
from kvstrata.plan.figures import Basis, Figure
from kvstrata.plan.gpus import Gpu, seen_as
from kvstrata.plan.presets import guessed
from kvstrata.plan.presets import model as named_model
from kvstrata.plan.reading import BadInputError, Fields
from kvstrata.plan.shape import Shape
from kvstrata.plan.workload import Range, Workload

# `--model llama-8b-shape` and `32b-shape` of bench serve: the sizes of these, with weights of no meaning.
_SHAPES = {"llama-8b-shape": "Llama-3.1-8B", "32b-shape": "Qwen3-32B"}
_GB = 1e9
HIT_FROM = 0.5
"""A request of whose prompt at least this share was cached is a hit; one of which nothing was, a miss."""


@dataclass(frozen=True)
class Seen:
    """What was measured of one configuration: medians of the rounds, times in seconds; None is what nothing told."""

    output_per_s: float
    to_none: float | None
    """Output tokens/s over those of vLLM alone, within the rounds."""
    cached: float | None
    """The share of prompt tokens that came from any cache."""
    ttft_p50: float | None
    ttft_p95: float | None
    miss: float | None
    """Median TTFT under load of the requests of which nothing was cached."""
    hit: float | None
    """The same of those of which at least HIT_FROM was."""
    ssd_gbps: Figure | None
    """10^9 bytes/s at which its chunks came from the stores."""


@dataclass(frozen=True)
class Case:
    """One configuration under one workload in one pass."""

    configuration: str
    settings: Mapping[str, Any]
    """The configuration as the run's plan has it."""
    workload: str
    pass_: str
    passes: int
    """How many times the load was sent by then, this one included."""
    seen: Seen


@dataclass(frozen=True)
class Load:
    """A workload of the proof of concept's kind, as it was sent."""

    workload: Workload
    think_s: float
    seed: int


def shape_of(record: Record) -> Shape:
    """Return the shape of the served model.

    Raises:
        BadInputError: the file does not hold its config.json, and its name is not known either.
    """
    model = record.stack.get("model")
    name = str(model.get("name", "")) if isinstance(model, Mapping) else str(model)
    config = record.stack.get("model_config")
    if isinstance(config, Mapping):
        # What it was served in: vLLM's --dtype goes before the model's own.
        dtype = record.plan.get("dtype")
        served = {**config, "dtype": dtype} if dtype in ("float32", "bfloat16", "float16") else config
        return parse_config(served, name, "config.json, in the benchmark's file")
    known = _SHAPES.get(name) or guessed(name)
    if known is None:
        raise BadInputError("model of the benchmark", name, "one with its config.json in the file; or --model")
    return named_model(known)


def gpu_of(record: Record) -> Gpu:
    """Return the GPU that the run was made on.

    Raises:
        BadInputError: there was none, or its data sheet is not known.
    """
    names = record.stack.get("gpu_names")
    name = str(names[0]) if isinstance(names, list) and names else "none"
    found = seen_as(name)
    if found is None:
        raise BadInputError("GPU of the benchmark", name, "a known GPU; or --node FILE with its figures")
    return found


def replicas_of(record: Record) -> int:
    """Return how many engines served."""
    found = record.stack.get("replicas", 1)
    return found if isinstance(found, int) else 1


def load_of(record: Record, name: str) -> Load | None:
    """Return a workload as the simulation knows it; None for those that are not multi-turn conversations of that kind.

    Raises:
        BadInputError: a parameter of it cannot be read.
    """
    if name != "poc":
        return None
    workloads = record.plan["workloads"]
    assert isinstance(workloads, list)  # noqa: S101 - bench serve's plan
    entry = next(entry for entry in workloads if isinstance(entry, dict) and entry["name"] == name)
    at = Fields(f"workload {name}", entry["parameters"])
    ranges = {field: _range(at, field) for field in ("messages", "prefix", "turn_in", "turn_out")}
    workload = Workload(name, at.integer("conversations", 1), at.integer("active", 1), **ranges)
    return Load(workload, at.number("think_s", 0, default=0.0), int(str(entry["seed"])))


def cases_of(record: Record) -> list[Case]:
    """Return what was measured, in the order of the report."""
    settings = {entry["name"]: entry for entry in _entries(record.plan.get("configurations"))}
    passes = [str(name) for name in _list(record.plan.get("passes"))] or ["cold", "warm"]
    rows = figures.rows(record.phases, 0, REFERENCE)
    return [
        Case(
            row.configuration,
            settings[row.configuration],
            row.workload,
            row.pass_,
            passes.index(row.pass_) + 1,
            _seen(row, _phases(record.phases, row)),
        )
        for row in rows
        if row.configuration in settings
    ]


def hbm_tokens(phases: Iterable[Phase], configuration: str) -> int | None:
    """Return the tokens that one engine of a configuration had room for, as it says itself."""
    for phase in phases:
        if phase.configuration == configuration:
            for source, values in phase.after.items():
                if source.startswith("vllm:") and values.get("kv_capacity_tokens"):
                    return round(values["kv_capacity_tokens"])
    return None


def _seen(row: Row, phases: Sequence[Phase]) -> Seen:
    def of(name: str) -> float | None:
        spread = row.spread(name)
        return spread.median if spread else None

    samples = [sample for phase in phases for sample in phase.samples if sample.ok and sample.ttft_s is not None]
    shares = [
        (sample.cached_tokens / sample.prompt_tokens, sample.ttft_s or 0.0)
        for sample in samples
        if sample.cached_tokens is not None
    ]
    misses = [ttft for share, ttft in shares if share == 0]
    hits = [ttft for share, ttft in shares if share >= HIT_FROM]
    rates = [rate for phase in phases if (rate := _ssd_rate(phase)) is not None]
    rate = replace(rates[0], value=median(each.value for each in rates)) if rates else None
    return Seen(
        output_per_s=of("output_per_s") or 0.0,
        to_none=None if row.configuration == REFERENCE else row.ratios.get("output_per_s"),
        cached=_cached(row),
        ttft_p50=of("ttft_p50"),
        ttft_p95=of("ttft_p95"),
        miss=median(misses) if misses else None,
        hit=median(hits) if hits else None,
        ssd_gbps=rate,
    )


def _cached(row: Row) -> float | None:
    shares = []
    for each in row.by_round.values():
        parts = (each.hbm_tokens, each.l1_tokens, each.l2_tokens)
        if each.computed_tokens is not None and (found := sum(part or 0 for part in parts)) + each.computed_tokens:
            shares.append(found / (found + each.computed_tokens))
    return median(shares) if shares else None


def _ssd_rate(phase: Phase) -> Figure | None:
    """Return how fast chunks came from the stores, by who loaded them; None where none did."""
    before, after = phase.before, phase.after
    if _loaded(after) > _loaded(before):
        rate = counters.total(after["l2"], "load_bytes_per_s")
        return Figure(rate / _GB, Basis.MEASURED, "kvstrata.l2, while it loaded") if rate else None
    name = "lmcache_mp_l2_load_throughput_GB_per_second"
    count = counters.difference(before, after, "lmcache", f"{name}_count")
    if count <= 0:
        return None
    mean = counters.difference(before, after, "lmcache", f"{name}_sum") / count
    # LMCache's rate of a load has its wait in it, so several at once are faster together. What the stores sent over the
    # whole phase is the least that they can.
    sent = _sent(before, after) / phase.duration_s / _GB if phase.duration_s > 0 else 0.0
    if sent > mean:
        return Figure(sent, Basis.MEASURED, "what the stores sent over the whole phase")
    return Figure(mean, Basis.MEASURED, "LMCache, the mean of its loads") if mean > 0 else None


def _sent(before: Counters, after: Counters) -> float:
    """Return the bytes that the stores sent, by their own INFO."""
    stores = [source for source in after if source.startswith("kvrocks:")]
    return sum(counters.difference(before, after, store, "total_net_output_bytes") for store in stores)


def _loaded(of: Counters) -> float:
    """Return the bytes that kvstrata.l2 has loaded, from all stores."""
    return sum(
        value for key, value in of.get("l2", {}).items() if key.startswith("bytes_total{") and "direction=load" in key
    )


def _phases(phases: Iterable[Phase], row: Row) -> list[Phase]:
    wanted = (row.configuration, row.workload, row.pass_)
    return [phase for phase in phases if (phase.configuration, phase.workload, phase.pass_) == wanted]


def _range(at: Fields, field: str) -> Range:
    """Read what bench serve declares of a range: [low, high]."""
    given = at.values.get(field)
    if not isinstance(given, list) or len(given) != 2 or not all(isinstance(end, int) for end in given):
        raise BadInputError(at.path(field), given, "a list of two whole numbers")
    return Range(*given)


def _entries(given: Any) -> list[dict[str, Any]]:
    return [entry for entry in _list(given) if isinstance(entry, dict)]


def _list(given: Any) -> list[Any]:
    return given if isinstance(given, list) else []
