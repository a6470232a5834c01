"""What a run wrote down, as JSON: docs/routing.md explains it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kvstrata.bench.errors import BenchError
from kvstrata.contract.arms import Arm
from kvstrata.contract.figures import Figures, Spread
from kvstrata.contract.run import Plan, Run

SCHEMA = "kvstrata.bench.routing/1"
# Among the notes of a run that did not do all that was asked.
CUT_SHORT = "CUT SHORT by a signal"
_FEW = 3


def to_json(run: Run, plan: Plan, header: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run with its verdicts; `header` tells when, where and on what."""
    judged = {arm.name for arm in plan.arms if arm.judged}
    few = [f"{plan.rounds} rounds: fewer than {_FEW}, the medians mean little"] if plan.rounds < _FEW else []
    return {
        "schema": SCHEMA,
        **header,
        "plan": {
            "rounds": plan.rounds,
            "seconds": plan.seconds,
            "per_s": plan.per_s,
            "disruption_s": plan.disruption_s,
            "disruption_rounds": plan.disruption_rounds,
            "routers": plan.routers,
            "slow_down": plan.slow_down,
            "seed": plan.seed,
        },
        "arms": [_arm(arm) for arm in plan.arms],
        "workloads": run.shapes,
        "verdicts": [{**asdict(one), "claimed": one.arm in judged} for one in run.verdicts(plan.arms)],
        "loads": [
            {"arm": one.arm, "round": one.round, "workload": one.workload, **_figures(one.figures)} for one in run.loads
        ],
        "disruptions": {arm: [asdict(one) for one in found] for arm, found in run.disruptions.items()},
        "overheads": {
            arm: [asdict(one) | {"added_p50_ms": one.added_p50_ms, "added_p99_ms": one.added_p99_ms} for one in found]
            for arm, found in run.overheads.items()
        },
        "saturations": [asdict(one) | {"per_s": one.per_s} for one in run.saturations],
        "failures": run.failures,
        "notes": [*run.notes, *few],
    }


def read(file: Path) -> dict[str, Any]:
    """Return a run that was written.

    Raises:
        BenchError: it cannot be read, or is something else.
    """
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise BenchError(f"--report {file}: {error}") from error
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise BenchError(f"--report {file}: no run of `kvstrata bench routing` ({SCHEMA})")
    return found


def passed(verdicts: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether every claimed point that was judged is met."""
    return all(one["ok"] is not False for one in verdicts if one["claimed"])


def _arm(arm: Arm) -> dict[str, Any]:
    return asdict(arm) | {"flags": list(arm.flags), "settings": dict(arm.settings)}


def _figures(found: Figures) -> dict[str, Any]:
    local = found.locality
    return {
        **{
            name: getattr(found, name)
            for name in (
                "requests",
                "failed",
                "retried",
                "unknown",
                "per_s",
                "prompt_tokens",
                "cached_tokens",
                "ttft_p50_s",
                "ttft_p99_s",
                "under_way",
                "cores",
                "waiting",
                "untold",
            )
        },
        "hit_rate": found.hit_rate,
        "locality": None if local is None else asdict(local) | {"share": local.share, "same_share": local.same_share},
        "spread": _spread(found.spread),
        "hot": None if found.hot is None else _spread(found.hot),
        "errors": list(found.errors),
    }


def _spread(found: Spread) -> dict[str, Any]:
    return asdict(found) | {"requests_ratio": found.requests_ratio, "computed_ratio": found.computed_ratio}
