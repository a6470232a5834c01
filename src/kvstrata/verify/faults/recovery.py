"""Await that a site is well again: a list of conditions, each asked until it is met or the time is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from kvstrata.cluster import Engine, LMCache, Router, RouterKind, Store
from kvstrata.verify import dynamo, resp, units
from kvstrata.verify.check import UnableError, UnmetError
from kvstrata.verify.context import NodeContext
from kvstrata.verify.faults.plan import Fault
from kvstrata.verify.layers.cache import LOOPBACK
from kvstrata.verify.units import UnitState

POLL_S = 0.5
_PARALLEL = 32
_ASK_S = 5.0


@dataclass(frozen=True)
class Condition:
    """Something that must hold again. `missing` returns None when it does, else what is not yet there."""

    name: str
    missing: Callable[[], str | None]


def await_all(conditions: Sequence[Condition], timeout_s: float, poll_s: float = POLL_S) -> dict[str, str]:
    """What is still missing after `timeout_s` seconds, by condition; nothing when all were met sooner.

    Each is asked until it is met once.
    """
    deadline = time.monotonic() + timeout_s
    left = list(conditions)
    with ThreadPoolExecutor(min(_PARALLEL, max(1, len(left)))) as pool:
        while True:
            over = time.monotonic() >= deadline
            said = list(pool.map(_ask, left))
            missing = {condition.name: text for condition, text in zip(left, said, strict=True) if text is not None}
            left = [condition for condition in left if condition.name in missing]
            if not left or over:
                return missing
            time.sleep(poll_s)


def _ask(condition: Condition) -> str | None:
    try:
        return condition.missing()
    except (UnmetError, UnableError) as error:
        return str(error)


def conditions(
    fault: Fault, contexts: Mapping[str, NodeContext], before: Mapping[str, UnitState]
) -> Iterator[Condition]:
    """What must hold after `fault`. `before` is the state of its units before it."""
    ctx = contexts[fault.node]
    node = ctx.node
    yield Condition(f"units on {node.name}", partial(_units, ctx, fault, before))
    for store in node.stores:
        if store.unit in fault.units:
            yield Condition(f"store {store.address}", partial(_answers, ctx, store))
    if node.lmcache is not None:
        if node.lmcache.unit in fault.units:
            yield Condition(f"LMCache on {node.name}", partial(_healthy, ctx, node.lmcache))
        yield Condition(f"engines of {node.name} in its LMCache", partial(_registered, ctx, node.lmcache))
    for engine in node.engines:
        if engine.unit in fault.units:
            yield Condition(f"engine {engine.url}", partial(_serves, ctx, engine))
    for other in contexts.values():
        if other.node.lmcache is not None:
            yield Condition(f"breakers of {other.node.name}", partial(_breakers, other, other.node.lmcache))
        if other.node.router is not None:
            yield Condition(f"router on {other.node.name}", partial(_workers, other, other.node.router))


def _units(ctx: NodeContext, fault: Fault, before: Mapping[str, UnitState]) -> str | None:
    now = units.states(ctx.shell, fault.units)
    down = [f"{name} {state.active} ({state.sub})" for name, state in now.items() if not state.running]
    same = [name for name, state in now.items() if name in before and before[name].invocation == state.invocation]
    said = [*down, *(f"{name} still the old process" for name in same)]
    return ", ".join(said) or None


def _answers(ctx: NodeContext, store: Store) -> str | None:
    with resp.authenticated(ctx.shell, store, _ASK_S) as client:
        client.ping()
    return None


def _healthy(ctx: NodeContext, lmcache: LMCache) -> str | None:
    said = ctx.service(LOOPBACK, lmcache.http_port, _ASK_S).json("/healthcheck").get("status")
    return None if said == "healthy" else f"/healthcheck says {said!r}"


def _status(ctx: NodeContext, lmcache: LMCache) -> dict[str, Any]:
    status: dict[str, Any] = ctx.service(LOOPBACK, lmcache.http_port, _ASK_S).json("/status")
    return status


def _registered(ctx: NodeContext, lmcache: LMCache) -> str | None:
    status = _status(ctx, lmcache)
    count = len(status.get("registered_gpu_ids", [])) + len(status.get("registered_non_cuda_instance_ids", []))
    wanted = sum(engine.has_model for engine in ctx.node.engines)
    return None if count >= wanted else f"{count} of {wanted} registered"


def _breakers(ctx: NodeContext, lmcache: LMCache) -> str | None:
    adapters = _status(ctx, lmcache).get("storage_manager", {}).get("l2_adapters", [])
    left = [
        f"{name} left alone ({endpoint.get('last_failure', '')})"
        for adapter in adapters
        for name, endpoint in adapter.get("endpoints", {}).items()
        if not endpoint.get("up")
    ]
    return ", ".join(left) or None


def _serves(ctx: NodeContext, engine: Engine) -> str | None:
    return None if ctx.engine(engine, _ASK_S).ready() else "not ready"


def _workers(ctx: NodeContext, router: Router) -> str | None:
    service = ctx.service(router.host, router.port, _ASK_S)
    if router.kind is RouterKind.DYNAMO:
        found = dynamo.instances(service)
        missing = [at for at in map(dynamo.address, ctx.cluster.engines) if at not in found]
        return f"missing: {', '.join(missing)}" if missing else None
    if service.status("/workers") == 404:
        return None
    workers = service.json("/workers").get("workers", [])
    sick = [str(worker.get("url")) for worker in workers if worker.get("is_healthy") is not True]
    return f"unhealthy: {', '.join(sick)}" if sick else None
