"""Whether vllm-router had the tokens of the prompts that it routed.

With kv_aware and with cache_aware it asks every worker for the tokens of every prompt (/v1/completions/render), and
does not wait long: without them it chooses as if no worker had anything. Its deadline is of the real clock: a machine
that is too small for its engines misses it, however much the engines' own clock is slowed.
"""

from __future__ import annotations

from dataclasses import dataclass

import httpx

from kvstrata.verify import prometheus

_INPUTS, _GIVEN = "vllm_router_kv_routing_inputs_total", "render"
_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Rendered:
    """How often a router asked workers for tokens until now, and how often it got none."""

    asked: int
    missing: int

    def since(self, before: Rendered) -> float | None:
        """Return the share that it got none of since then; None where it asked nobody."""
        asked = self.asked - before.asked
        return (self.missing - before.missing) / asked if asked else None


def counted(metrics: str) -> Rendered:
    """Return what a router counted; `metrics` is the URL of its figures.

    Raises:
        httpx.HTTPError: it cannot be read.
    """
    answer = httpx.get(metrics, timeout=_TIMEOUT_S, trust_env=False).raise_for_status()
    return read(answer.text)


def read(text: str) -> Rendered:
    """Return what a router's figures say; zeros where it never asked."""
    samples = prometheus.parse(text)
    asked, given = samples.total(_INPUTS), samples.total(_INPUTS, result=_GIVEN)
    return Rendered(round(asked), round(asked - given))
