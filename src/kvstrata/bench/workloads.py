"""Request traces for the simulation of write policies: which chunks each prompt has. Deterministic for a seed."""

from __future__ import annotations

import hashlib
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

CHUNK_TOKENS = 256
"""LMCache's default chunk; of Llama-3.1-8B (128 KiB a token) it takes 32 MiB."""


@dataclass(frozen=True)
class Request:
    """One prompt: the ids of its whole chunks in order, and its length in tokens."""

    cids: tuple[bytes, ...]
    prompt_tokens: int


def multi_turn(
    seed: int, conversations: int = 400, active: int = 50, passes: int = 1, chunk_tokens: int = CHUNK_TOKENS
) -> list[Request]:
    """Return the proof of concept's benchmark: vLLM's benchmark_serving_multi_turn.py with its settings.

    num_turns 2-28 (messages, made even: 1 to 14 requests), a prefix of 800-1,200 tokens of each conversation's own,
    50-150 tokens of input and 100-230 of output for each turn, all uniform. Each prompt is the conversation so far.
    `active` conversations take turns, one request each (round robin); one that ends is replaced by the next. With
    `passes` the same conversations are held again.
    """
    rng = random.Random(seed)  # noqa: S311 - a workload, no secret
    held = [list(_conversation(rng, f"{seed}/{index}", chunk_tokens)) for index in range(conversations)]
    requests: list[Request] = []
    for _ in range(passes):
        waiting = deque(deque(conversation) for conversation in held)
        talking = deque(waiting.popleft() for _ in range(min(active, len(waiting))))
        while talking:
            conversation = talking.popleft()
            requests.append(conversation.popleft())
            if conversation:
                talking.append(conversation)
            elif waiting:
                talking.append(waiting.popleft())
    return requests


def _conversation(rng: random.Random, name: str, chunk_tokens: int) -> Iterator[Request]:
    messages = rng.randint(2, 28)
    tokens = rng.randint(800, 1200)
    cids: list[bytes] = []
    for _ in range((messages + messages % 2) // 2):
        tokens += rng.randint(50, 150)
        while (len(cids) + 1) * chunk_tokens <= tokens:
            cids.append(_cid(name, len(cids)))
        yield Request(tuple(cids), tokens)
        tokens += rng.randint(100, 230)


def skewed(
    seed: int,
    requests: int = 4000,
    documents: int = 500,
    exponent: float = 1.0,
    one_off_share: float = 0.5,
    chunk_tokens: int = CHUNK_TOKENS,
) -> list[Request]:
    """Return questions about shared documents among prompts that nobody sends twice.

    Documents (or system prompts) have 1,000-12,000 tokens; the k-th most popular is asked for in proportion to
    1 / k^`exponent` (Zipf), followed by a question of 50-150 tokens. A share of `one_off_share` of the requests are
    prompts of 500-6,000 tokens of their own.
    """
    rng = random.Random(seed)  # noqa: S311 - a workload, no secret
    lengths = [rng.randint(1000, 12000) for _ in range(documents)]
    weights = list(accumulate(1 / rank**exponent for rank in range(1, documents + 1)))
    trace = []
    for number in range(requests):
        own = f"{seed}/one-off/{number}"
        if rng.random() < one_off_share:
            tokens = rng.randint(500, 6000)
            trace.append(Request(tuple(_cid(own, i) for i in range(tokens // chunk_tokens)), tokens))
            continue
        document = rng.choices(range(documents), cum_weights=weights)[0]
        tokens = lengths[document] + rng.randint(50, 150)
        shared = lengths[document] // chunk_tokens
        # The chunk in which the document ends holds a part of the question too, so it is the request's own.
        trace.append(
            Request(
                tuple(
                    _cid(f"{seed}/document/{document}" if i < shared else own, i) for i in range(tokens // chunk_tokens)
                ),
                tokens,
            )
        )
    return trace


def _cid(name: str, index: int) -> bytes:
    return hashlib.blake2b(f"{name}/{index}".encode(), digest_size=16).digest()
