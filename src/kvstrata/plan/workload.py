"""Multi-turn conversations: what users send. The proof of concept's benchmark is the preset."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """Whole numbers, uniform, both ends included."""

    low: int
    high: int

    def draw(self, rng: random.Random) -> int:
        """Return one of them."""
        return rng.randint(self.low, self.high)

    @property
    def mean(self) -> float:
        """Their mean."""
        return (self.low + self.high) / 2


@dataclass(frozen=True)
class Workload:
    """Users who hold one conversation after another. Everything but counts is in tokens.

    vLLM's benchmark_serving_multi_turn.py with the proof of concept's settings: messages 2-28 (made even; half of them
    are requests), a prefix of its own before each conversation, each prompt the conversation so far.
    """

    name: str = "poc"
    conversations: int = 400
    active: int = 50
    messages: Range = Range(2, 28)
    prefix: Range = Range(800, 1200)
    turn_in: Range = Range(50, 150)
    turn_out: Range = Range(100, 230)

    @property
    def mean_prompt(self) -> int:
        """Return the expected length of a prompt, over all requests of all conversations."""
        total = requests = 0.0
        for messages in range(self.messages.low, self.messages.high + 1):
            turns = (messages + messages % 2) // 2
            per_turn = self.turn_in.mean + self.turn_out.mean
            total += turns * (self.prefix.mean + self.turn_in.mean) + per_turn * turns * (turns - 1) / 2
            requests += turns
        return round(total / requests)

    @property
    def longest(self) -> int:
        """The longest prompt and its answer."""
        turns = (self.messages.high + self.messages.high % 2) // 2
        return self.prefix.high + turns * (self.turn_in.high + self.turn_out.high)


@dataclass(frozen=True)
class Turn:
    """One request: the tokens of its prompt, and of its answer."""

    prompt: int
    output: int


def conversations(workload: Workload, seed: int) -> Iterator[list[Turn]]:
    """Yield conversations without end; a seed always gives the same ones."""
    rng = random.Random(seed)  # noqa: S311 - a workload, no secret
    while True:
        messages = workload.messages.draw(rng)
        tokens = workload.prefix.draw(rng)
        turns = []
        for _ in range((messages + messages % 2) // 2):
            tokens += workload.turn_in.draw(rng)
            turns.append(Turn(tokens, workload.turn_out.draw(rng)))
            tokens += turns[-1].output
        yield turns
