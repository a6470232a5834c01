"""Whether an answer arrives token by token, or all at once at its end."""

from __future__ import annotations

import time
from collections.abc import Sequence

from kvstrata.verify.check import Json, NotCheckedError, UnmetError
from kvstrata.verify.context import NodeContext
from kvstrata.verify.http import Service

TOKENS = 48
# An answer that takes less from its first to its last token tells nothing: the network delivers it in one go.
LEAST_S = 0.03
# Of the time that the router takes from the first token to the last one. What is held back arrives in no time.
SHARE = 0.25
# A busy machine may make one answer look so; not several.
ATTEMPTS = 3


class HeldBackError(UnmetError):
    """An answer came all at once through the edge."""


def arrivals(service: Service, ctx: NodeContext) -> list[float]:
    """When the tokens of an answer arrived, in seconds since it was asked for."""
    body = {
        "model": ctx.cluster.model.name,
        "messages": [{"role": "user", "content": "Count to one hundred."}],
        "max_tokens": TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
    }
    began, times = time.monotonic(), list[float]()
    for event in service.events("/v1/chat/completions", body, ctx.timeout_s):
        if event.get("choices"):
            times.append(time.monotonic() - began)
    return times


def compare(router: Service, edge: Service, ctx: NodeContext, data: dict[str, Json]) -> str:
    """The same question to both; UnmetError for an edge that holds answers back time after time."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return judge(arrivals(router, ctx), arrivals(edge, ctx), data)
        except HeldBackError:
            if attempt == ATTEMPTS:
                raise
    raise AssertionError("unreachable")


def judge(behind: Sequence[float], through: Sequence[float], data: dict[str, Json]) -> str:
    """Compare what came from the router with what came through the edge; UnmetError for an edge that holds back."""
    if len(through) < 2 or len(behind) < 2:
        raise UnmetError(f"{len(through)} events came through the edge, {len(behind)} from the router")
    router, edge = behind[-1] - behind[0], through[-1] - through[0]
    data |= {"events": len(through), "first_s": round(through[0], 4), "span_s": round(edge, 4)}
    data["router_span_s"] = round(router, 4)
    seen = f"{len(through)} events over {edge * 1000:.0f} ms, the first after {through[0] * 1000:.0f} ms"
    if router < LEAST_S:
        raise NotCheckedError(f"that answers stream is not proven: from the router they take {router * 1000:.0f} ms")
    if edge < SHARE * router:
        raise HeldBackError(f"{seen}; from the router they come over {router * 1000:.0f} ms: something holds them back")
    return f"{seen}; from the router over {router * 1000:.0f} ms"
