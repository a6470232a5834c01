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

# How late an event may come, and how far two machines' clocks may be apart after correction.
_SLACK_S = 2.0


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
    """The last one that stored it for the attempt that was answered; or for one before, whose block it found again."""
    until = answer.ended + _SLACK_S
    for since in (answer.last_sent - _SLACK_S, answer.sent - _SLACK_S):
        if told := [worker for at, worker in stores if since <= at <= until]:
            return told[-1]
    return None


def disagreements(before: Sequence[Answer], after: Sequence[Answer]) -> tuple[int, int]:
    """Return how many answers said which worker gave them and were attributed too, and how many to another one."""
    both = [
        (told.worker, found.worker)
        for told, found in zip(before, after, strict=True)
        if told.worker is not None and found.worker is not None
    ]
    return len(both), sum(told != found for told, found in both)
