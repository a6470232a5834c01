"""The proof of concept's multi-turn conversations, drawn by the planner's own model of them (plan/workload.py).

What vLLM's benchmarks/multi_turn/benchmark_serving_multi_turn.py does with those settings, and what is the same here:
`num_turns` counts messages and is made even, so half of it are requests; each conversation begins with a prefix of its
own, in front of its first input; nothing is shared between conversations; every prompt is the conversation so far with
the answers really given; the next request of a conversation follows its last answer at once. `active` conversations are
held at a time, the next begins when one ends (there: as many clients, with one conversation each).

Not the same: prompts are token ids and not chat messages, so lengths are exact and no template is between; answers are
exactly as long as drawn (ignore_eos; there max_tokens, and a model may stop before); all conversations are finished
(there a client stops when the queue is empty, and leaves open ones unfinished).
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

from kvstrata.bench.serving.model import Conversation, Turn
from kvstrata.bench.serving.workloads.vocabulary import Vocabulary
from kvstrata.plan.workload import Workload as Shape
from kvstrata.plan.workload import conversations

COUNTS = ("conversations", "active")


@dataclass(frozen=True)
class Settings(Shape):
    """The planner's workload, and the mean time to think between an answer and the next question (exponential)."""

    think_s: float = 0.0


def build(settings: Settings, vocabulary: Vocabulary, seed: int) -> tuple[Conversation, ...]:
    """Return the conversations; their lengths are those that the planner simulates with the same seed."""
    rng = random.Random(f"poc:{seed}")  # noqa: S311 - a workload, no secret
    drawn = itertools.islice(conversations(settings, seed), settings.conversations)
    found = []
    for number, lengths in enumerate(drawn):
        turns, held = [], 0
        for index, length in enumerate(lengths):
            new = length.prompt - held
            think = rng.expovariate(1 / settings.think_s) if settings.think_s and index else 0.0
            turns.append(Turn(vocabulary.draw(rng, new), new, length.output, think))
            held = length.prompt + length.output
        found.append(Conversation(f"poc-{number}", tuple(turns)))
    return tuple(found)
