"""Workloads of `bench serve`: seeded, exact in tokens, the same for every configuration (docs/workloads.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving.model import Conversation, Json, Workload
from kvstrata.bench.serving.workloads import longdoc, poc, settings, shared, trace
from kvstrata.bench.serving.workloads.vocabulary import Vocabulary, of_model
from kvstrata.bench.serving.workloads.working_set import WorkingSet, working_set_tokens

__all__ = ["NAMES", "Vocabulary", "WorkingSet", "build", "of_model", "parameters", "working_set_tokens"]


@dataclass(frozen=True)
class _Kind:
    defaults: Any
    counts: tuple[str, ...]
    build: Callable[[Any, Vocabulary, int], tuple[Conversation, ...]]


_KINDS = {
    "poc": _Kind(poc.Settings(), poc.COUNTS, poc.build),
    "longdoc": _Kind(longdoc.Settings(), longdoc.COUNTS, longdoc.build),
    "shared": _Kind(shared.Settings(), shared.COUNTS, shared.build),
    "trace": _Kind(trace.Settings(), (), trace.build),
}
NAMES = tuple(_KINDS)


def build(
    name: str,
    vocabulary: Vocabulary,
    seed: int,
    *,
    given: Mapping[str, str] | None = None,
    scale: float = 1.0,
) -> Workload:
    """Return a workload; the same arguments give the same one, on every machine.

    Args:
        name: one of NAMES.
        vocabulary: the tokens of its prompts.
        seed: of lengths, tokens and orders.
        given: settings by name, as text: `40` or `80-120` (docs/workloads.md lists them).
        scale: conversations, documents or users and how many are active, times this; of a trace the first requests.

    Raises:
        BenchError: an unknown name or setting, a value that is not allowed, a trace that cannot be read.
    """
    kind = _kind(name)
    if not 0 < scale <= 1:
        raise BenchError(f"--scale: given {scale:g}; allowed: above 0, up to 1")
    chosen = settings.override(name, settings.scale(kind.defaults, scale, kind.counts), given or {})
    if name == "trace" and scale < 1 and not chosen.requests:
        chosen = replace(chosen, requests=max(1, round(len(trace.build(chosen, vocabulary, seed)) * scale)))
    conversations = kind.build(chosen, vocabulary, seed)
    declared: dict[str, Json] = settings.declare(chosen)
    if changed := settings.differences(chosen, kind.defaults):
        declared["note"] = f"not the workload as it is defined: {changed}"
    return Workload(name, conversations, getattr(chosen, "active", None), seed, declared)


def parameters(name: str) -> dict[str, Json]:
    """Return the settings that a workload has, and their defaults.

    Raises:
        BenchError: an unknown name.
    """
    return settings.declare(_kind(name).defaults)


def _kind(name: str) -> _Kind:
    if name not in _KINDS:
        raise BenchError(f"workload: given {name!r}; allowed: {', '.join(NAMES)}")
    return _KINDS[name]
