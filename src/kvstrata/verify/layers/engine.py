"""The vLLM replicas of a node."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from kvstrata.cluster import Engine
from kvstrata.verify.check import Check, Json, UnmetError
from kvstrata.verify.context import NodeContext


def checks(ctx: NodeContext) -> Iterator[Check]:
    """Health and model of every replica."""
    model = ctx.cluster.model
    for engine in ctx.node.engines:
        name = f"{engine.unit} {engine.host}:{engine.port}"
        versions: dict[str, Json] = {}
        yield ctx.question("engine.health", f"{name} health", "/health answers 200", ctx.journal(engine.unit)).ask(
            partial(_health, ctx, engine, versions), versions
        )
        yield ctx.question(
            "engine.model",
            f"{name} model",
            f"{model.name} with {model.max_model_len} tokens",
            ctx.command(f"curl -s {engine.url}/v1/models"),
        ).ask(partial(_model, ctx, engine))


def _health(ctx: NodeContext, engine: Engine, versions: dict[str, Json]) -> str:
    service = ctx.service(engine.host, engine.port)
    code = service.status("/health")
    if code != 200:
        raise UnmetError(f"/health answers {code}")
    versions["version"] = version = str(service.json("/version").get("version", "unknown"))
    return f"200, vLLM {version}"


def _model(ctx: NodeContext, engine: Engine) -> str:
    wanted = ctx.cluster.model
    served = ctx.service(engine.host, engine.port).json("/v1/models").get("data", [])
    lengths = {str(model.get("id")): model.get("max_model_len") for model in served}
    seen = ", ".join(f"{name} with {length} tokens" for name, length in lengths.items()) or "no model"
    if lengths.get(wanted.name) != wanted.max_model_len:
        raise UnmetError(seen)
    return seen
