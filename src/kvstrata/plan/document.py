"""The plan as JSON: docs/plan.md describes every field."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from kvstrata.plan.assess import Plan, TierPlan
from kvstrata.plan.curve import Point
from kvstrata.plan.engine import HBM_SHARE, REQUEST_OVERHEAD_S, STEP_OVERHEAD_S
from kvstrata.plan.figures import Figure
from kvstrata.plan.suggest import suggested
from kvstrata.plan.tiers import Verdict
from kvstrata.plan.wear import WRITE_AMPLIFICATION

SCHEMA = "kvstrata.plan/1"


def as_document(plan: Plan, notes: Sequence[str] = ()) -> dict[str, Any]:
    """Return the whole plan; numbers are not rounded, and null is what is not known."""
    return {
        "schema": SCHEMA,
        "exit_code": plan.exit_code,
        "verdict": "hurts" if plan.exit_code else "pays",
        "hurting": [str(tier.tier.name) for tier in plan.hurting],
        "notes": list(notes),
        "model": _model(plan),
        "deployment": {
            "nodes": plan.deployment.nodes,
            "replicas": plan.replicas,
            "tensor_parallel": plan.deployment.tensor_parallel,
            "chunk_tokens": plan.deployment.chunk_tokens,
            "dram_cache_gib": plan.dram_cache_gib,
            "min_load_gbps": plan.deployment.min_load_gbps,
        },
        "figures": {name: figure(value) for name, value in figures(plan).items()},
        "workload": {
            "name": plan.question.workload.name,
            "mean_prompt_tokens": plan.question.workload.mean_prompt,
            "loads": plan.question.loads,
            "seed": plan.question.seed,
        },
        "tiers": [_tier(tier) for tier in plan.tiers],
        "break_even_gbps_per_replica": plan.min_load_gbps,
        "curve": [_point(point) for point in plan.points],
        "wear": _wear(plan),
        "suggested": suggested(plan),
        "versions": {"kvstrata": version("kvstrata"), "python": platform.python_version()},
    }


def figure(value: Figure) -> dict[str, Any]:
    """Return a figure with what it rests on."""
    return {"value": value.value, "basis": str(value.basis), "source": value.source}


def figures(plan: Plan) -> dict[str, Figure]:
    """Return every figure that the plan rests on, by a name with its unit."""
    node, engine = plan.node, plan.engine
    compute = engine.kv.shape.compute
    found = {
        f"gpu_tflops_{compute if compute in node.gpu.tflops else 'bf16'}": node.gpu.peak(compute),
        "gpu_hbm_gib": node.gpu.hbm_gib,
        "gpu_hbm_gbps": node.gpu.hbm_gbps,
        "gpu_link_gbps": node.gpu.link_gbps,
        "mfu": engine.mfu,
        "mbu": engine.mbu,
        "step_overhead_s": STEP_OVERHEAD_S,
        "request_overhead_s": REQUEST_OVERHEAD_S,
        "hbm_share": HBM_SHARE,
        "dram_gib": node.dram_gib,
        "dram_gbps": node.dram_gbps,
        "cpu_cores": node.cpu_cores,
        "nic_gbit": node.nic_gbit,
    }
    for drive in node.drives:
        found[f"drive_{drive.name}_read_gbps"] = drive.read_gbps
        found[f"drive_{drive.name}_write_gbps"] = drive.write_gbps
        if drive.tbw:
            found[f"drive_{drive.name}_tbw"] = drive.tbw
    if node.drives:
        found["write_amplification"] = WRITE_AMPLIFICATION
    if plan.ssd_measured:
        found["ssd_gbps"] = plan.ssd_measured
    return found


def _model(plan: Plan) -> dict[str, Any]:
    shape, kv = plan.deployment.shape, plan.engine.kv
    return {
        "name": shape.name,
        "source": shape.source,
        "parameters": shape.parameters,
        "active_parameters": shape.active_parameters,
        "weight_bytes": shape.weight_bytes,
        "kv_dtype": kv.kv_dtype,
        "kv_bytes_per_token": kv.stored_bytes_per_token,
        "kv_bytes_per_token_and_gpu": kv.rank_bytes_per_token,
        "hbm_tokens_per_replica": plan.hbm_tokens,
    }


def _tier(planned: TierPlan) -> dict[str, Any]:
    tier = planned.tier
    return {
        "name": str(tier.name),
        "pays": planned.verdict.pays,
        "margin": planned.verdict.margin,
        "most_loads": planned.most_loads,
        "gbps": tier.gbps,
        "limited_by": tier.slowest[0],
        "limits": {name: figure(value) for name, value in tier.limits},
        "capacity_gib": tier.capacity_gib,
        "tokens": planned.tokens,
        "decisive": _verdict(planned.verdict),
        "alone": _verdict(planned.alone),
        "prompts": [_verdict(verdict) for verdict in planned.others],
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    finite = verdict.break_even_gbps != float("inf")
    return {
        "prompt_tokens": verdict.tokens,
        "loads": verdict.sharing,
        "ttft_miss_s": verdict.miss_s,
        "ttft_hit_s": verdict.hit_s,
        "margin": verdict.margin,
        "break_even_gbps": verdict.break_even_gbps if finite else None,
        "gbps": verdict.gbps,
        "pays": verdict.pays,
    }


def _point(point: Point) -> dict[str, Any]:
    return {
        "users": point.users,
        "think_s": point.think_s,
        "tiers": {
            name: {
                "hit_rate": outcome.hit_rate,
                "hbm_tokens": outcome.hbm_tokens,
                "dram_tokens": outcome.dram_tokens,
                "ssd_tokens": outcome.ssd_tokens,
                "prompt_tokens": outcome.prompt_tokens,
                "requests": outcome.requests,
                "output_tokens_per_s_per_replica": outcome.output_per_s,
                "ttft_p50_s": outcome.quantile(0.5),
                "ttft_p95_s": outcome.quantile(0.95),
                "speedup": point.speedup(name),
                "ttft_ratio": point.ttft_ratio(name),
            }
            for name, outcome in point.outcomes.items()
        },
    }


def _wear(plan: Plan) -> dict[str, Any] | None:
    if plan.wear_point is None:
        return None
    return {
        "users": plan.wear_point.users,
        "think_s": plan.wear_point.think_s,
        "offered_gbps_per_node": plan.offered_gbps,
        "drives": [
            {"drive": wear.drive, "tb_per_day": wear.tb_per_day, "dwpd": wear.dwpd, "years_to_tbw": wear.years}
            for wear in plan.wear
        ],
    }
