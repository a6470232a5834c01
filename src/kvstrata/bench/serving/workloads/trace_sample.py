"""The sample trace: made up, in the form of Mooncake's conversation trace. `python -m` this module rewrites it.

What it has from the published traces' description (Mooncake, FAST'25, section 4): conversations whose prompts grow by
their answers and new questions, a first block that all share (a system prompt), prompts of thousands of tokens, answers
of some hundreds at most, and arrivals of chance. Its numbers stand for nobody's traffic.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from kvstrata.bench.serving.workloads.trace import BLOCK, SAMPLE

SEED = 20_260_101
REQUESTS = 240
_RATE_PER_S = 1.0
_THINK_S = 20.0
_NEW = 0.35
_FIRST = (800, 6_000)
_QUESTION = (40, 800)
_ANSWER = (30, 320)
_LONGEST = 12_000


def generate(seed: int = SEED, requests: int = REQUESTS) -> Iterator[str]:
    """Yield the lines of a trace; the same seed gives the same lines."""
    rng = random.Random(seed)  # noqa: S311 - a workload, no secret
    ids = count(1)
    open_: list[tuple[float, int, list[int]]] = []
    now = 0.0
    for _ in range(requests):
        now += rng.expovariate(_RATE_PER_S)
        ready = [held for held in open_ if held[0] <= now]
        if not ready or rng.random() < _NEW:
            length, known = rng.randint(*_FIRST), [0]
        else:
            held = rng.choice(ready)
            open_.remove(held)
            length, known = held[1] + rng.randint(*_QUESTION), held[2]
        # A block that was not full was another one then: only whole blocks are found again.
        blocks = known[: length // BLOCK]
        blocks += [next(ids) for _ in range(math.ceil(length / BLOCK) - len(blocks))]
        answer = rng.randint(*_ANSWER)
        yield json.dumps(
            {"timestamp": int(now * 1000), "input_length": length, "output_length": answer, "hash_ids": blocks}
        )
        if length + answer < _LONGEST:
            open_.append((now + rng.expovariate(1 / _THINK_S), length + answer, blocks[: length // BLOCK]))


def write(path: Path = SAMPLE) -> None:
    """Write the sample."""
    path.write_text("".join(f"{line}\n" for line in generate()))


if __name__ == "__main__":
    write()
