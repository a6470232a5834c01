"""The endpoint of the site on each router host: its replicas, its policy, its figures."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from kvstrata.cluster import Router, RouterKind
from kvstrata.verify.check import Check, Json, UnmetError
from kvstrata.verify.context import NodeContext
from kvstrata.verify.http import Service
from kvstrata.verify.layers import endpoint
from kvstrata.verify.layers.following import upon
from kvstrata.verify.layers.router import policy, workers

COMPLETION_TOKENS = 8


def checks(ctx: NodeContext) -> Iterator[Check]:
    """The router, on a node that runs one."""
    if ctx.node.router is not None:
        yield from _Asked(ctx, ctx.node.router).all()


@dataclass
class _Asked(endpoint.Endpoint):
    router: Router

    @cached_property
    def service(self) -> Service:
        return self.ctx.service(self.router.host, self.router.port)

    @cached_property
    def figures(self) -> Service:
        """Where its metrics are."""
        return self.ctx.service(self.router.metrics_host, self.router.metrics_port)

    def all(self) -> Iterator[Check]:
        url, journal = self.router.url, self.ctx.journal(self.router.unit)
        model = self.ctx.cluster.model.name
        health = self.ask(
            "router.health",
            f"router {url} health",
            "/health answers 200",
            journal,
            lambda: endpoint.health(self.service),
        )
        yield health
        models = self.ctx.command(f"curl -s {url}/v1/models")
        yield self.ask("router.models", f"models of {url}", model, models, upon(health, self._models))
        engines = len(self.ctx.cluster.engines)
        expected = f"all {engines} of the inventory, healthy, and no other"
        of_dynamo = self.router.kind is RouterKind.DYNAMO
        command = self.ctx.command(f"curl -s {url}/{'health' if of_dynamo else 'workers'}")
        found = workers.of_dynamo if of_dynamo else workers.of_vllm_router
        yield self.ask(
            "router.workers", "engines behind the router", expected, command, lambda: found(self.ctx, self.service)
        )
        numbers: dict[str, Json] = {}
        yield self.ask(
            "router.completion",
            "chat completion through the router",
            f"an answer of {model}",
            journal,
            lambda: completion(self.ctx, self.router, numbers),
            numbers,
        )
        metrics = self.ctx.command(f"curl -s http://{self.router.metrics_host}:{self.router.metrics_port}/metrics")
        expected = "for Prometheus, requests counted"
        # After the completion: a router that chose nobody yet tells no policy.
        yield self.ask(
            "router.metrics",
            f"metrics of {url}",
            expected,
            metrics,
            upon(health, lambda: policy.counted(self.figures, self.router)),
        )
        wanted = self.router.policy
        yield self.ask(
            "router.policy",
            f"policy of {url}",
            f"{wanted}, as the inventory says",
            self.ctx.command(f"systemctl cat {self.router.unit}"),
            upon(health, lambda: policy.judge(self.router, self.figures)),
        )
        if policy.follows_events(self.router):
            data: dict[str, Json] = {}
            yield self.ask(
                "router.events",
                f"KV events at {url}",
                "a prompt that an engine has is known to the router",
                journal,
                upon(health, lambda: policy.events(self.ctx, self.router, self.service, self.figures, data)),
                data,
            )

    def _models(self) -> str:
        model = self.ctx.cluster.model.name
        served = [str(one.get("id")) for one in self.service.json("/v1/models").get("data", [])]
        if model not in served:
            raise UnmetError(", ".join(served) or "none")
        return ", ".join(sorted(set(served)))


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
