"""Which replicas a router has: exactly those of the inventory, all of them well."""

from __future__ import annotations

from collections.abc import Mapping

from kvstrata.verify import dynamo
from kvstrata.verify.check import NotCheckedError, UnmetError
from kvstrata.verify.context import NodeContext
from kvstrata.verify.http import Service

REGISTERED = "dynamo_component_router_worker_registered"


def of_vllm_router(ctx: NodeContext, router: Service) -> str:
    """By vllm-router's own list, in which workers are healthy or not."""
    if router.status("/workers") == 404:
        raise NotCheckedError("this router lists no workers; an engine may be missing behind it unseen")
    listed = router.json("/workers").get("workers", [])
    found = {str(one.get("url", "")).rstrip("/"): one.get("is_healthy") is True for one in listed}
    return _judged({engine.url for engine in ctx.cluster.engines}, found)


def of_dynamo(ctx: NodeContext, frontend: Service) -> str:
    """By what a frontend has discovered, in which workers are known by where they take requests."""
    instances = dynamo.instances(frontend)
    metrics = frontend.metrics()
    # What was discovered is used once the router of the frontend has taken it in.
    taken = {
        address: not metrics.has(REGISTERED)
        or any(metrics.total(REGISTERED, router_worker_id=str(number)) >= 1 for number in numbers)
        for address, numbers in instances.items()
    }
    return _judged({dynamo.address(engine) for engine in ctx.cluster.engines}, taken)


def _judged(wanted: set[str], found: Mapping[str, bool]) -> str:
    problems = [f"missing {name}" for name in sorted(wanted - found.keys())]
    problems += [f"unknown {name}" for name in sorted(found.keys() - wanted)]
    problems += [f"unhealthy {name}" for name, healthy in sorted(found.items()) if not healthy]
    if problems:
        raise UnmetError("; ".join(problems))
    return f"{len(found)}, all healthy"
