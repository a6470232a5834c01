"""The one endpoint of the site."""

from __future__ import annotations

import time
from collections.abc import Iterator

from kvstrata.cluster import Router
from kvstrata.verify.check import Check, Json, NotCheckedError, UnmetError
from kvstrata.verify.context import NodeContext

COMPLETION_TOKENS = 8


def checks(ctx: NodeContext) -> Iterator[Check]:
    """The router, on the node that runs it."""
    router = ctx.node.router
    if router is None:
        return
    journal = ctx.journal(router.unit)
    url = f"http://{router.host}:{router.port}"
    yield ctx.question("router.health", f"router {url} health", "/health answers 200", journal).ask(
        lambda: _health(ctx, router)
    )
    yield ctx.question(
        "router.workers",
        "engines behind the router",
        f"all {len(ctx.cluster.engines)} of the inventory, healthy, and no other",
        ctx.command(f"curl -s {url}/workers"),
    ).ask(lambda: _workers(ctx, router))
    numbers: dict[str, Json] = {}
    yield ctx.question(
        "router.completion",
        "chat completion through the router",
        f"an answer of {ctx.cluster.model.name}",
        journal,
    ).ask(lambda: completion(ctx, router, numbers), numbers)


def _health(ctx: NodeContext, router: Router) -> str:
    code = ctx.service(router.host, router.port).status("/health")
    if code != 200:
        raise UnmetError(f"/health answers {code}")
    return "200"


def _workers(ctx: NodeContext, router: Router) -> str:
    service = ctx.service(router.host, router.port)
    if service.status("/workers") == 404:
        raise NotCheckedError("this router lists no workers; an engine may be missing behind it unseen")
    workers = {
        str(worker.get("url", "")).rstrip("/"): worker.get("is_healthy") is True
        for worker in service.json("/workers").get("workers", [])
    }
    wanted = {engine.url for engine in ctx.cluster.engines}
    problems = [f"missing {url}" for url in sorted(wanted - workers.keys())]
    problems += [f"unknown {url}" for url in sorted(workers.keys() - wanted)]
    problems += [f"unhealthy {url}" for url, healthy in sorted(workers.items()) if not healthy]
    if problems:
        raise UnmetError("; ".join(problems))
    return f"{len(workers)}, all healthy"


def completion(ctx: NodeContext, router: Router, numbers: dict[str, Json]) -> str:
    """Ask the site one short question, as a client would; UnmetError when it doesn't answer well."""
    model = ctx.cluster.model.name
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Say hello."}],
        "max_tokens": COMPLETION_TOKENS,
        "temperature": 0,
    }
    started = time.monotonic()
    answer = ctx.service(router.host, router.port).post("/v1/chat/completions", body, ctx.timeout_s)
    took = time.monotonic() - started
    # Tokens and not text: a test model with random weights may answer in unprintable ones.
    tokens = answer.get("usage", {}).get("completion_tokens", 0)
    if answer.get("model") != model:
        raise UnmetError(f"an answer of {answer.get('model')!r}")
    if not answer.get("choices") or tokens < 1:
        raise UnmetError("an empty answer")
    numbers |= {"seconds": round(took, 3), "completion_tokens": tokens}
    return f"{tokens} tokens in {took:.2f} s"
