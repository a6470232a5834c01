"""Whether the engines' own caches hold all that a workload wants to find again: then tiers below have nothing to give.

Judged from a run's record each time a report is made, and kept nowhere. Behind a router that keeps conversations where
they were, each replica holds its part of them. Behind any other a replica is asked for all of them, so that one must
have room for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kvstrata.bench.serving.engine_options import POLICIES_THAT_KEEP, ROUTER_POLICY
from kvstrata.bench.serving.model import Counters
from kvstrata.bench.serving.record import Record

FITS = "THE WORKING SET FITS IN HBM"


def policy_of(stack: Mapping[str, Any]) -> str:
    """Return how a run's router chose replicas: before runs told it, as roles/router does by default."""
    return str(stack.get("router_policy") or ROUTER_POLICY)


def keeps(stack: Mapping[str, Any]) -> bool:
    """Whether a conversation's turns went where its last one was; with one engine they do."""
    return stack.get("replicas", 1) == 1 or policy_of(stack) in POLICIES_THAT_KEEP


def moved_by(stack: Mapping[str, Any]) -> str:
    """Return ", POLICY" to name a router that moved conversations; nothing where they stayed where they were."""
    return "" if keeps(stack) else f", {policy_of(stack)}"


def room(after: Counters, stack: Mapping[str, Any]) -> int:
    """Return the tokens for which the engines that get the load have room, each once; 0 where none told it."""
    engines = [values for source, values in after.items() if source.startswith("vllm:")]
    # On a node of a site others stand beside the one that is measured.
    loaded = engines[: stack.get("replicas", len(engines))]
    each = [round(values["kv_capacity_tokens"]) for values in loaded if values.get("kv_capacity_tokens")]
    return sum(each) if keeps(stack) else min(each, default=0)


def holds(record: Record, configuration: str, workload: str) -> bool:
    """Whether HBM alone held a workload under one of a run's configurations."""
    return any(found[:2] == (configuration, workload) for found in _held(record))


def remarks(record: Record) -> list[str]:
    """Return a sentence for each configuration and workload of which HBM held all."""
    who = "the engines have" if keeps(record.stack) else "each engine has"
    return [
        f"{configuration}: {FITS}: {workload} holds {live} tokens at once, {who} room for {room}: the tiers below are "
        "not tested (--hbm-gib caps the room)"
        for configuration, workload, live, room in _held(record)
    ]


def noted(note: str) -> bool:
    """Whether a note of a record says so: runs kept it there once, by the room of all engines whatever their router."""
    return FITS in note


def _held(record: Record) -> Iterator[tuple[str, str, int, int]]:
    planned: Any = record.plan.get("workloads") or ()
    live = {entry["name"]: (entry.get("working_set") or {}).get("live") for entry in planned}
    seen = set()
    for phase in record.phases:
        key, has = (phase.configuration, phase.workload), room(phase.after, record.stack)
        wanted = live.get(phase.workload)
        if key not in seen and wanted and wanted <= has:
            seen.add(key)
            yield (*key, wanted, has)
