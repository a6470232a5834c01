"""Which engine answered a request, told by the engines' KV events where no router tells it.

A turn's prompt ends in words that no prompt had before. So the last whole block of it, after all blocks before, is
stored once: by the engine that computed it, whatever chose that engine and whichever caches it took the rest from.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

from kvstrata.contract.client import Answer
from kvstrata.contract.residency import Batch, Residency

# How late an event may come, and how far two machines' clocks may be apart after their correction.
_LATE_S, _APART_S = 2.0, 0.1


def attributed(
    answers: Sequence[Answer],
    batches: Sequence[Batch],
    tokens: Callable[[Sequence[str]], list[list[int]]],
    block_size: int,
) -> tuple[Answer, ...]:
    """Return the answers with the worker that computed the last whole block of each prompt; None where nobody told.

    Args:
        answers: of a load in which every turn's prompt has a whole block of its own.
        batches: all workers' events, by time.
        tokens: returns the tokens of texts.
        block_size: in tokens.
    """
    residency, stores = Residency(block_size), defaultdict[int, list[tuple[float, str]]](list)
    for batch in batches:
        for block in residency.apply(batch):
            stores[block].append((batch.at, batch.worker))
    prompts = tokens([answer.request.prompt for answer in answers])
    found = []
    for answer, ids in zip(answers, prompts, strict=True):
        blocks = residency.blocks(ids)
        last = blocks[-1] if blocks else None
        found.append(replace(answer, worker=_worker(answer, stores.get(last, ()) if last is not None else ())))
    return tuple(found)


def _worker(answer: Answer, stores: Sequence[tuple[float, str]]) -> str | None:
    """The first one that stored it for the attempt that was answered: the next turn may store it again elsewhere.

    Without any, an attempt before was computed in vain, and found again by this one.
    """
    since, until = answer.last_sent - _APART_S, answer.ended + _LATE_S
    for at, worker in stores:
        if since <= at <= until:
            return worker
    before = [worker for at, worker in stores if answer.sent - _APART_S <= at < since]
    return before[-1] if before else None


def disagreements(before: Sequence[Answer], after: Sequence[Answer]) -> tuple[int, int]:
    """Return how many answers said which worker gave them and were attributed too, and how many to another one."""
    both = [
        (told.worker, found.worker)
        for told, found in zip(before, after, strict=True)
        if told.worker is not None and found.worker is not None
    ]
    return len(both), sum(told != found for told, found in both)
