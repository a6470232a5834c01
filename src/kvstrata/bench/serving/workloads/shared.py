"""Many users behind shared system prompts: one question each."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from kvstrata.bench.serving.model import Conversation, Turn
from kvstrata.bench.serving.workloads.vocabulary import Vocabulary
from kvstrata.plan.workload import Range

COUNTS = ("users", "active")


@dataclass(frozen=True)
class Settings:
    """Users are spread evenly over the system prompts, in an order of chance; everything but counts is in tokens."""

    users: int = 400
    prompts: int = 1
    system: Range = field(default=Range(4_000, 4_000))
    question: Range = field(default=Range(50, 150))
    answer: Range = field(default=Range(100, 230))
    active: int = 50


def build(settings: Settings, vocabulary: Vocabulary, seed: int) -> tuple[Conversation, ...]:
    """Return one request for each user."""
    rng = random.Random(f"shared:{seed}")  # noqa: S311 - a workload, no secret
    systems = [vocabulary.draw(rng, settings.system.draw(rng)) for _ in range(settings.prompts)]
    order = [user % settings.prompts for user in range(settings.users)]
    rng.shuffle(order)
    found = []
    for user, system in enumerate(order):
        prompt = systems[system] + vocabulary.draw(rng, settings.question.draw(rng))
        found.append(Conversation(f"shared-{user}", (Turn(prompt, len(prompt), settings.answer.draw(rng)),)))
    return tuple(found)
