"""Show that the stores give again: a new prompt is stored by one node and found by another."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from kvstrata.verify import wait
from kvstrata.verify.check import Json, UnableError, UnmetError
from kvstrata.verify.context import NodeContext
from kvstrata.verify.http import UnansweredError
from kvstrata.verify.tiers import prompt, stream
from kvstrata.verify.tiers.counters import Counters
from kvstrata.verify.tiers.judge import HIT_SHARE, whole_chunks
from kvstrata.verify.tiers.proof import Subject

# Enough chunks for several stores to get one, and few enough for a CPU.
CHUNKS = 4
POLL_S = 0.5
# Counters are published by background threads, a moment after the answer.
SETTLE_S = 10.0


def pair(contexts: Mapping[str, NodeContext], node: str) -> tuple[Subject, Subject] | None:
    """A node that writes and one that reads, both with engine and LMCache; None where there is only one such."""
    fit = [ctx for ctx in contexts.values() if ctx.node.engines and ctx.node.lmcache is not None]
    # The node of the fault reads: its cache and engine were the ones that had to find their way back.
    fit.sort(key=lambda ctx: ctx.node.name == node)
    return (Subject.of(fit[0]), Subject.of(fit[-1])) if len(fit) > 1 else None


def again(writer: Subject, reader: Subject, seed: str, timeout_s: float, data: dict[str, Json]) -> str:
    """Try with new prompts until one comes from the stores; UnmetError when none did within `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    tries = 0
    while True:
        tries += 1
        try:
            hit, whole = _once(writer, reader, f"{seed}-{tries}", max(1.0, deadline - time.monotonic()))
            said = (
                f"{hit} of {whole} tokens of a prompt that {writer.name} stored came from the stores to {reader.name}"
            )
            if hit >= HIT_SHARE * whole:
                data |= {"hit_tokens": hit, "whole_tokens": whole, "prompts": tries}
                return said
        except (UnmetError, UnableError) as trouble:
            said = str(trouble)
        if time.monotonic() >= deadline:
            raise UnmetError(f"no hit from the stores: {said}")
        time.sleep(POLL_S)


def _once(writer: Subject, reader: Subject, seed: str, left_s: float) -> tuple[int, int]:
    """Tokens of one new prompt that came from the stores, and how many its whole chunks have."""
    chunk, model = reader.lmcache.chunk_size, reader.ctx.cluster.model
    room = model.max_model_len - 1 - prompt.SLACK_TOKENS
    text = prompt.build(writer.engine, model.name, min(CHUNKS * chunk + 1, room), seed)
    whole = whole_chunks(text.tokens, chunk)
    if whole < 1:
        raise UnableError(f"a prompt of {text.tokens} tokens has no whole chunk of {chunk}")
    before = writer.read()
    stream.complete(writer.engine, model.name, text.text, 1, left_s)

    def stored() -> bool | None:
        now = writer.read() - before
        return True if now.l2_completed_chunks >= whole else None

    if wait.until(_patient(stored), min(left_s, 30.0), POLL_S) is None:
        raise UnmetError(f"{writer.name} did not store {whole} chunks")
    start = reader.read()
    stream.complete(reader.engine, model.name, text.text, 1, left_s)

    def counted() -> Counters | None:
        now = reader.read() - start
        return now if now.requests >= 1 and now.l2_hits >= HIT_SHARE * whole * chunk else None

    found = wait.until(_patient(counted), min(left_s, SETTLE_S), POLL_S)
    delta = reader.read() - start if found is None else found
    return round(min(delta.l2_hits, delta.external_hits)), whole * chunk


def _patient[T](condition: Callable[[], T | None]) -> Callable[[], T | None]:
    """The condition, not met while a service is silent."""

    def ask() -> T | None:
        try:
            return condition()
        except UnansweredError:
            return None

    return ask
