"""LMCache on a node: healthy, tied to its stores and engines, and not reachable from outside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kvstrata.cluster import LMCache
from kvstrata.verify.check import Check, Json, UnmetError
from kvstrata.verify.context import NodeContext
from kvstrata.verify.shell import Reach, Shell

LOOPBACK = "127.0.0.1"


def checks(ctx: NodeContext) -> Iterator[Check]:
    """The node's cache server, where it has one."""
    lmcache = ctx.node.lmcache
    if lmcache is None:
        return
    journal = ctx.journal(lmcache.unit)
    url = f"http://{LOOPBACK}:{lmcache.http_port}"
    yield ctx.question("cache.health", "LMCache health", "/healthcheck says healthy", journal).ask(
        lambda: _health(ctx, lmcache)
    )
    yield ctx.question(
        "cache.chunk",
        "LMCache chunk size",
        f"{lmcache.chunk_size} tokens",
        ctx.command(f"curl -s {url}/status"),
    ).ask(lambda: _chunk(ctx, lmcache))
    numbers: dict[str, Json] = {}
    yield ctx.question(
        "cache.l2",
        "the cache's stores",
        "all in use, nothing damaged; chunks are stored",
        ctx.command(f"curl -s {url}/status"),
    ).ask(lambda: _l2(ctx, lmcache, numbers), numbers)
    yield ctx.question(
        "cache.engines",
        "engines registered with LMCache",
        f"at least {len(ctx.node.engines)}",
        journal,
    ).ask(lambda: _registered(ctx, lmcache))
    address = f"{ctx.node.fabric_host}:{lmcache.http_port}"
    yield ctx.question(
        "cache.closed",
        f"LMCache HTTP closed at {address}",
        "no connection (its API has no password and runs scripts)",
        ctx.command("ss -ltnp"),
    ).ask(lambda: _closed(ctx, lmcache))


def _status(ctx: NodeContext, lmcache: LMCache) -> dict[str, Any]:
    status: dict[str, Any] = ctx.service(LOOPBACK, lmcache.http_port).json("/status")
    return status


def _health(ctx: NodeContext, lmcache: LMCache) -> str:
    answer = ctx.service(LOOPBACK, lmcache.http_port).json("/healthcheck")
    if answer.get("status") != "healthy":
        raise UnmetError(f"/healthcheck says {answer.get('status')!r}")
    if _status(ctx, lmcache).get("is_healthy") is not True:
        raise UnmetError("/healthcheck says healthy, /status says is_healthy false")
    return "healthy"


def _chunk(ctx: NodeContext, lmcache: LMCache) -> str:
    size = _status(ctx, lmcache).get("chunk_size")
    if size != lmcache.chunk_size:
        raise UnmetError(f"{size} tokens")
    return f"{size} tokens"


def _l2(ctx: NodeContext, lmcache: LMCache, numbers: dict[str, Json]) -> str:
    adapters = _status(ctx, lmcache).get("storage_manager", {}).get("l2_adapters", [])
    if not adapters:
        raise UnmetError("no L2 adapter: nothing is kept beyond this node's DRAM")
    metrics = ctx.service(LOOPBACK, lmcache.http_port).metrics()
    submitted = metrics.total("lmcache_mp_l2_store_submitted_objects_chunks_total")
    completed = metrics.total("lmcache_mp_l2_store_completed_objects_chunks_total")
    active = metrics.total("lmcache_mp_l2_store_adapters", state="active")
    numbers |= {"adapters": len(adapters), "submitted_chunks": submitted, "completed_chunks": completed}
    endpoints: dict[str, Any] = {}
    for adapter in adapters:
        endpoints |= adapter.get("endpoints", {})
    up = [name for name, endpoint in endpoints.items() if endpoint["up"]]
    used = sum(endpoint["used_bytes"] for endpoint in endpoints.values())
    capacity = sum(endpoint["capacity_bytes"] for endpoint in endpoints.values())
    damaged = sum(endpoint["counters"].get("damaged", 0) for endpoint in endpoints.values())
    numbers |= {"stores": len(endpoints), "stores_up": len(up), "used_bytes": used, "capacity_bytes": capacity}
    seen = (
        f"{len(up)} of {len(endpoints)} in use, {used / 2**30:.2f} of {capacity / 2**30:.2f} GiB; "
        f"stored {completed:.0f} of {submitted:.0f} chunks since its start"
    )
    left = [f"{name} ({endpoint['last_failure']})" for name, endpoint in endpoints.items() if not endpoint["up"]]
    if left:
        raise UnmetError(f"{seen}; left alone: {', '.join(left)}")
    sick = [str(adapter.get("type", "?")) for adapter in adapters if adapter.get("is_healthy") is not True]
    if sick:
        raise UnmetError(f"{seen}; not healthy: {', '.join(sick)}")
    if damaged:
        raise UnmetError(f"{seen}; {damaged} damaged pieces were read")
    if active < 1:
        raise UnmetError(f"{seen}; {active:.0f} active")
    # Chunks that were never stored while everything says healthy: a dead store looks so.
    if submitted > 0 and completed == 0:
        raise UnmetError(f"{seen}: its stores never succeed")
    return seen


def _registered(ctx: NodeContext, lmcache: LMCache) -> str:
    status = _status(ctx, lmcache)
    count = len(status.get("registered_gpu_ids", [])) + len(status.get("registered_non_cuda_instance_ids", []))
    if count < len(ctx.node.engines):
        raise UnmetError(f"{count}: an engine runs without its cache")
    return f"{count}"


def _closed(ctx: NodeContext, lmcache: LMCache) -> str:
    host, port = ctx.node.fabric_host, lmcache.http_port
    # From the node itself: shows where it listens. From another: shows what the network lets through.
    vantage: list[tuple[str, Shell]] = [(ctx.node.name, ctx.shell)]
    if ctx.peer is not None:
        vantage.append((ctx.peer.node.name, ctx.peer.shell))
    seen = {name: shell.probe(host, port) for name, shell in vantage}
    said = ", ".join(f"{reach.value} from {name}" for name, reach in seen.items())
    if Reach.OPEN in seen.values():
        raise UnmetError(said)
    return said
