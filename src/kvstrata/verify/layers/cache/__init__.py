"""LMCache on a node: healthy, tied to its stores and engines, and not reachable from outside."""

from __future__ import annotations

from collections.abc import Iterator

from kvstrata.cluster import LMCache
from kvstrata.verify.check import Check, Json, UnmetError
from kvstrata.verify.context import NodeContext
from kvstrata.verify.layers.cache import adapter, daemon, stores
from kvstrata.verify.layers.cache.state import LOOPBACK as LOOPBACK  # others take it from here
from kvstrata.verify.layers.cache.state import State, fetch
from kvstrata.verify.layers.following import Once, follows_from, upon


def checks(ctx: NodeContext) -> Iterator[Check]:
    """The node's cache server, where it has one."""
    lmcache = ctx.node.lmcache
    if lmcache is None:
        return
    state = Once(lambda: fetch(ctx, lmcache.http_port))
    health = ctx.question("cache.health", "LMCache health", "/healthcheck says healthy", ctx.journal(lmcache.unit)).ask(
        lambda: daemon.health(ctx, lmcache, state())
    )
    yield health
    yield from _stores(ctx, lmcache, state, health)
    yield from _itself(ctx, lmcache, state, health)
    address = f"{ctx.node.fabric_host}:{lmcache.http_port}"
    yield ctx.question(
        "cache.closed",
        f"LMCache HTTP closed at {address}",
        "no connection (its API has no password and runs scripts)",
        ctx.command("ss -ltnp"),
    ).ask(lambda: daemon.closed(ctx, lmcache))


def _stores(ctx: NodeContext, lmcache: LMCache, state: Once[State], health: Check) -> Iterator[Check]:
    """Its way to the stores."""
    status = ctx.command(f"curl -s http://{LOOPBACK}:{lmcache.http_port}/status")
    numbers: dict[str, Json] = {}
    yield ctx.question(
        "cache.breaker",
        "circuit breakers towards the stores",
        "closed towards every store that answers this node",
        status,
    ).ask(upon(health, lambda: stores.breaker(ctx, state, numbers)), numbers)
    written: dict[str, Json] = {}
    yield ctx.question(
        "cache.l2", "the cache's stores", "those of the inventory, nothing damaged; chunks are stored", status
    ).ask(upon(health, lambda: stores.l2(ctx, lmcache, state(), written)), written)
    times: dict[str, Json] = {}
    yield ctx.question(
        "cache.adapter",
        "a chunk through the adapter",
        "stored, found, loaded with equal sha256 and deleted",
        ctx.journal(lmcache.unit),
    ).ask(upon(health, lambda: adapter.through(ctx, lmcache, state(), times)), times)


def _itself(ctx: NodeContext, lmcache: LMCache, state: Once[State], health: Check) -> Iterator[Check]:
    """What it runs with, and for whom."""
    status = ctx.command(f"curl -s http://{LOOPBACK}:{lmcache.http_port}/status")
    chunk = ctx.question("cache.chunk", "LMCache chunk size", f"{lmcache.chunk_size} tokens", status).ask(
        upon(health, lambda: daemon.chunk(lmcache, state()))
    )
    yield chunk
    found: dict[str, Json] = {}

    def identity() -> str:
        try:
            return stores.identity(lmcache, state(), found)
        except UnmetError:
            if chunk.bad:
                # The size of a chunk is part of the identity.
                raise follows_from(chunk) from None
            raise

    yield ctx.question(
        "cache.identity", "namespace of the cache", f"{lmcache.namespace or 'that of the inventory'}", status
    ).ask(upon(health, identity), found)
    sizes: dict[str, Json] = {}

    def tier() -> str:
        sizes.update(daemon.memory(ctx, lmcache))
        return daemon.tier(lmcache, state(), sizes)

    expected = f"{lmcache.l1_gib:g} GiB" if lmcache.l1_gib is not None else "as the inventory says"
    yield ctx.question("cache.tier", "DRAM tier", expected, status).ask(upon(health, tier), sizes)
    registered: dict[str, Json] = {}
    yield ctx.question(
        "cache.engines",
        "engines registered with LMCache",
        f"at least {sum(engine.has_model for engine in ctx.node.engines)}",
        ctx.journal(lmcache.unit),
    ).ask(upon(health, lambda: daemon.engines(ctx, state(), registered)), registered)
