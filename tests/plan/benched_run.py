"""A run of bench serve that measured exactly what the simulation predicts of it, but for what a test changes."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

from kvstrata.bench.serving.correctness import Answer
from kvstrata.bench.serving.model import Phase, RequestSample, TierTokens
from kvstrata.bench.serving.record import Record
from kvstrata.plan.held import held
from kvstrata.plan.simulate import Outcome, Setup
from kvstrata.plan.tiers import Tier
from kvstrata.plan.workload import Range, Workload
from tests.plan.samples import dram, engine, ssd

WORKLOAD = Workload("poc", 40, 20, Range(6, 10), Range(800, 1200), Range(50, 150), Range(100, 230))
HBM_GIB, DRAM_GIB, SSD_GIB, SSD_GBPS = 4.0, 4.0, 64.0, 3.0
LINK_GBPS = 63 * 0.87
NAMES = ("none", "dram", "dram+ssd")


def tiers(name: str) -> tuple[Tier, ...]:
    """The tiers of a configuration as the plan should come to know them."""
    if name == "none":
        return ()
    behind = dram(DRAM_GIB, LINK_GBPS)
    return (behind,) if name == "dram" else (behind, ssd(SSD_GBPS, behind, SSD_GIB))


@cache
def predicted(name: str, passes: int) -> Outcome:
    """What an H100 does by the simulation."""
    setup = Setup(engine(kv_cache_gib=HBM_GIB), tiers(name), 1, 1, 256, recheck_s=0.0)
    return held(setup, WORKLOAD, passes, seed=7)


def configuration(name: str) -> dict[str, Any]:
    """A configuration as the run's plan has it."""
    return {
        "name": name,
        "cache": "none" if name == "none" else "lmcache",
        "stores": "kvstrata" if "ssd" in name else "none",
        "l1_gib": DRAM_GIB,
        "chunk_tokens": 256,
        "hbm_gib": HBM_GIB,
        "min_load_gbps": 0.0,
        "engine": {},
    }


def phase(name: str, pass_: str, outcome: Outcome, slower: float) -> Phase:
    """The outcome as samples, everything `slower` times as slow."""
    samples = tuple(
        RequestSample(
            conversation=str(number),
            turn=0,
            scheduled_s=0.0,
            started_s=0.0,
            ttft_s=ttft * slower,
            itl_s=(0.0,),
            e2e_s=ttft * slower,
            prompt_tokens=1000,
            output_tokens=outcome.output_tokens // outcome.requests,
            cached_tokens=round(share * 1000),
        )
        for number, (ttft, share) in enumerate(zip(outcome.ttft_s, outcome.cached, strict=True))
    )
    loads = {f"bytes_total{{direction=load,endpoint={name}}}": 1e9, "load_bytes_per_s{endpoint=a}": SSD_GBPS * 1e9}
    of = outcome
    computed = of.prompt_tokens - of.hbm_tokens - of.dram_tokens - of.ssd_tokens
    return Phase(
        configuration=name,
        round=1,
        workload="poc",
        pass_="cold" if pass_ == "cold" else "warm",
        started_at="2026-11-27T09:00:00+00:00",
        duration_s=of.seconds * slower,
        samples=samples,
        after={"l2": loads} if name == "dram+ssd" else {},
        tiers=TierTokens(of.hbm_tokens, of.dram_tokens, of.ssd_tokens, computed),
    )


def record(slower: dict[str, float] | None = None, *, alone_mfu: float | None = None) -> Record:
    """The run; `slower` by configuration. With `alone_mfu`, prompts were also computed alone, at that MFU."""
    parameters: dict[str, Any] = {
        "conversations": WORKLOAD.conversations,
        "active": WORKLOAD.active,
        "think_s": 0.0,
        **{name: [getattr(WORKLOAD, name).low, getattr(WORKLOAD, name).high] for name in RANGES},
    }
    made = Record(
        created="2026-11-27T09:00:00+00:00",
        plan={
            "passes": ["cold", "warm"],
            "dtype": "bfloat16",
            "configurations": [configuration(name) for name in NAMES],
            "workloads": [{"name": "poc", "seed": 7, "parameters": parameters}],
        },
        stack={
            "gpus": 1,
            "gpu_names": ["NVIDIA H100 80GB HBM3"],
            "replicas": 1,
            "stores": 1,
            "store_gib": SSD_GIB,
            "model": {"name": "llama-8b-shape", "tensor_parallel": 1, "kv_dtype": "auto"},
        },
    )
    for passes, pass_ in ((1, "cold"), (2, "warm")):
        for name in NAMES:
            made.phases.append(phase(name, pass_, predicted(name, passes), (slower or {}).get(name, 1.0)))
    if alone_mfu is not None:
        made.answers.append(answer(alone_mfu))
    return made


RANGES = ("messages", "prefix", "turn_in", "turn_out")


def answer(mfu: float) -> Answer:
    """A prompt of 4,000 tokens, computed alone at an MFU, and its 32 tokens."""
    used = engine()
    used = replace(used, mfu=replace(used.mfu, value=mfu))
    seconds = used.prefill_s(4000) + 31 * used.step_s(1, 0.0, 4000)
    return Answer("none", "q", 4000, 0, tuple(range(32)), (), seconds)
