"""How a router chooses, by its own figures, and whether it hears what engines have in their caches."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Final

from kvstrata.cluster import Router, RouterKind
from kvstrata.verify import prometheus, wait
from kvstrata.verify.check import Json, NotCheckedError, UnmetError
from kvstrata.verify.context import NodeContext
from kvstrata.verify.http import Service
from kvstrata.verify.synthetic import SAMPLE_WORDS, words

# Any of these counts requests.
_REQUESTS: Final[Mapping[RouterKind, tuple[str, ...]]] = {
    RouterKind.VLLM_ROUTER: ("vllm_router_requests_total",),
    RouterKind.DYNAMO: ("dynamo_frontend_requests_total", "dynamo_component_router_requests_total"),
}
# What a router finds of a prompt in engines' caches; the rest of the results are misses of some kind.
LOOKUPS = "vllm_router_kv_placement_lookups_total"
APPLIED = "dynamo_component_kv_cache_events_applied"
# A frontend has these figures with `--router-mode kv` alone.
DYNAMO_KV = "kv"
KV_ROUTER = "dynamo_component_router_kv_hit_rate_count"
SETTLE_S = 10.0
POLL_S = 0.3


def counted(figures: Service, router: Router) -> str:
    """Whether the endpoint of the figures tells requests."""
    metrics = figures.metrics()
    name = next((name for name in _REQUESTS[router.kind] if metrics.has(name)), None)
    if name is None:
        raise UnmetError(f"{len(metrics.rows)} samples, none of them {' or '.join(_REQUESTS[router.kind])}")
    return f"{len(metrics.rows)} samples, {metrics.total(name):.0f} requests"


def judge(router: Router, figures: Service) -> str:
    """Whether the running router chooses as the inventory says."""
    metrics = figures.metrics()
    if router.kind is RouterKind.DYNAMO:
        if metrics.has(KV_ROUTER) is not (router.policy == DYNAMO_KV):
            raise UnmetError(f"its figures are those of {'the' if metrics.has(KV_ROUTER) else 'no'} router mode kv")
        if router.policy != DYNAMO_KV:
            raise NotCheckedError(f"not kv; that it is {router.policy} no figure tells")
        return router.policy
    used = policies(metrics)
    if not used:
        raise NotCheckedError("its figures name no policy; router.locality shows how it chooses")
    if used != {router.policy}:
        raise UnmetError(f"it chose by {' and '.join(sorted(used))}")
    return router.policy


def policies(metrics: prometheus.Samples) -> set[str]:
    """Those by which a vllm-router has chosen since its start."""
    return {
        labels["policy"]
        for name, labels, value in metrics.rows
        if name.startswith("vllm_router_") and "policy" in labels and value > 0
    }


def follows_events(router: Router) -> bool:
    """Whether it needs to hear of engines' caches."""
    return router.policy == (DYNAMO_KV if router.kind is RouterKind.DYNAMO else "kv_aware")


def events(ctx: NodeContext, router: Router, service: Service, figures: Service, data: dict[str, Json]) -> str:
    """Send a prompt twice: what the engine told of the first sending must be known at the second one."""
    began = _known(router, figures.metrics())
    count = min(SAMPLE_WORDS, max(16, ctx.cluster.model.max_model_len // 8))
    body = {
        "model": ctx.cluster.model.name,
        "prompt": f"{secrets.token_hex(8)} {words(secrets.token_hex(8), count)}",
        "max_tokens": 1,
        "temperature": 0,
    }

    def heard() -> float | None:
        service.post("/v1/completions", body, ctx.timeout_s)
        now = _known(router, figures.metrics()) - began
        return now if now > 0 else None

    found = wait.until(heard, SETTLE_S, POLL_S)
    what = "events taken in" if router.kind is RouterKind.DYNAMO else "lookups found a prefix"
    if found is None:
        raise UnmetError(f"0 {what} within {SETTLE_S:g} s while a prompt was sent again and again")
    data["known"] = found
    return f"{found:.0f} {what}"


def _known(router: Router, metrics: prometheus.Samples) -> float:
    if router.kind is RouterKind.DYNAMO:
        return metrics.total(APPLIED, event_type="stored", status="ok")
    return sum(
        value
        for name, labels, value in metrics.rows
        if name == LOOKUPS and not labels.get("result", "miss").startswith(("miss", "error", "un"))
    )
