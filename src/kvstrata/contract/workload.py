"""The conversations of the contract test: who says how much when, the same for every arm of a run."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kvstrata.verify.synthetic import words

_WORDS = 200


@dataclass(frozen=True)
class Turn:
    """What a user adds, what the engine's answer is taken to be, and the time before the turn is sent."""

    text: str
    answer: str
    think_s: float


@dataclass(frozen=True)
class Conversation:
    """Turn by turn; the prompt of a turn holds all that was said before.

    The answers in it are the workload's own, not what the engine made up: prompts are then the same in every arm,
    whatever its engines answer. What is looked for in caches is the part that was a prompt before.
    """

    name: str
    turns: tuple[Turn, ...]
    hot: bool = False
    """Whether it begins with the prefix that many share."""

    def prompt(self, turn: int) -> str:
        """Return the whole prompt of a turn, counted from 0."""
        said = [part.text + part.answer for part in self.turns[:turn]]
        return "".join(said) + self.turns[turn].text


@dataclass(frozen=True)
class Shape:
    """What conversations look like. Sizes in tokens, times in seconds."""

    first: int = 600
    more: int = 120
    output: int = 12
    turns: int = 6
    short_think_s: float = 3.0
    long_think_s: float = 80.0
    long_share: float = 0.2
    """Most people answer soon, some come back after a long while: think times are drawn from two exponentials."""
    hot_share: float = 0.0
    hot_tokens: int = 800

    @property
    def tokens(self) -> float:
        """Of a conversation in the middle of its life, which is what it takes in a cache on average."""
        grown = (self.more + self.output) * (self.turns - 1) / 2
        return self.first + grown + self.hot_share * self.hot_tokens

    def slowed(self, times: float) -> Shape:
        """Return the same with waits that are so many times as long."""
        return replace(self, short_think_s=self.short_think_s * times, long_think_s=self.long_think_s * times)

    @property
    def think_s(self) -> float:
        """The mean time between turns."""
        return (1 - self.long_share) * self.short_think_s + self.long_share * self.long_think_s


class Conversations:
    """Conversations without an end, each decided by the seed and its number."""

    def __init__(self, shape: Shape, seed: int, salt: str, tokens_per_word: float) -> None:
        """`salt` begins every prompt and every name: with another one, neither caches nor routers know any of it.

        Its beginning must differ from that of others: their first KV block must not be the same.
        """
        self._shape, self._seed, self._salt = shape, seed, salt
        self._tokens_per_word = tokens_per_word
        self._hot = self._text("hot", shape.hot_tokens) if shape.hot_share else ""

    def __getitem__(self, number: int) -> Conversation:
        """Return one."""
        shape, name = self._shape, f"c{number}"
        told = f"{self._salt} {name}".replace(" ", "-")
        chance = random.Random(f"{self._seed} {name}")  # noqa: S311 - no secret
        hot = chance.random() < shape.hot_share
        turns = []
        for turn in range(shape.turns):
            size = shape.more if turn else shape.first
            text = self._text(f"{name} {turn}", round(size * chance.uniform(0.7, 1.3)))
            answer = self._text(f"{name} {turn} answer", shape.output)
            mean = shape.long_think_s if chance.random() < shape.long_share else shape.short_think_s
            turns.append(Turn(text, answer, chance.expovariate(1 / mean)))
        if hot:
            turns[0] = Turn(self._hot + turns[0].text, turns[0].answer, turns[0].think_s)
        return Conversation(told, tuple(turns), hot)

    def begins_at(self, number: int, slots: int) -> tuple[int, float]:
        """Return the turn at which a slot's first conversation is joined, and the time until that turn.

        A run cuts a piece out of a load that goes on for ever: at its beginning conversations are in all turns.
        """
        chance = random.Random(f"{self._seed} begin {number}")  # noqa: S311 - no secret
        shape = self._shape
        turn = number % shape.turns if slots >= shape.turns else 0
        # What is left of a wait that began earlier: long waits are met more often.
        long = chance.random() < shape.long_share * shape.long_think_s / shape.think_s
        return turn, chance.expovariate(1 / (shape.long_think_s if long else shape.short_think_s))

    def _text(self, name: str, tokens: int) -> str:
        head = f" {self._salt} {self._seed} {name} "
        return head + words(head, max(1, round((tokens - len(head) / 4) / self._tokens_per_word)))


def tokens_per_word(counts: Sequence[int]) -> float:
    """Return a tokenizer's tokens for each word of ours, from its counts for texts of `sample_texts`."""
    return sum(counts) / (len(counts) * _WORDS)


def sample_texts() -> list[str]:
    """Return texts to count the tokens of."""
    return [words(f"sample {number}", _WORDS) for number in range(3)]
