"""Questions about long documents: a document comes back only after others have been asked about."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from kvstrata.bench.serving.model import Conversation, Turn
from kvstrata.bench.serving.workloads.vocabulary import Vocabulary
from kvstrata.plan.workload import Range

COUNTS = ("documents", "distance", "active")


@dataclass(frozen=True)
class Settings:
    """Each request is a document and one question about it; everything but counts is in tokens.

    distance: how many documents are asked about in turn before the first of them comes back. As long as their KV is
    more than a tier holds, that tier (least recently used first) has lost it by then.
    """

    documents: int = 40
    document: Range = field(default=Range(10_000, 10_000))
    questions: int = 4
    question: Range = field(default=Range(50, 100))
    answer: Range = field(default=Range(100, 100))
    distance: int = 40
    active: int = 8


def build(settings: Settings, vocabulary: Vocabulary, seed: int) -> tuple[Conversation, ...]:
    """Return one request each: `distance` documents with their first questions, then with their second, and so on."""
    rng = random.Random(f"longdoc:{seed}")  # noqa: S311 - a workload, no secret
    texts = [vocabulary.draw(rng, settings.document.draw(rng)) for _ in range(settings.documents)]
    found = []
    for first in range(0, settings.documents, settings.distance):
        group = range(first, min(first + settings.distance, settings.documents))
        for question in range(settings.questions):
            for document in group:
                prompt = texts[document] + vocabulary.draw(rng, settings.question.draw(rng))
                turn = Turn(prompt, len(prompt), settings.answer.draw(rng))
                found.append(Conversation(f"longdoc-{document}-{question}", (turn,)))
    return tuple(found)
