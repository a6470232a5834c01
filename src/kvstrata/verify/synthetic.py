"""Texts that no cache has seen, of about a wanted number of the model's own tokens."""

from __future__ import annotations

import random
from dataclasses import dataclass

from kvstrata.verify.check import UnableError
from kvstrata.verify.http import Service

_SYLLABLES = ("ka", "lo", "mi", "nu", "re", "so", "ti", "va", "be", "du", "fe", "go", "hi", "ju", "pa", "we")
SAMPLE_WORDS = 200


def words(seed: str, count: int) -> str:
    """`count` words; the seed decides which, and the same seed gives the same words."""
    # Not for secrets.
    choose = random.Random(seed)  # noqa: S311
    return " ".join("".join(choose.choices(_SYLLABLES, k=choose.randint(1, 3))) for _ in range(count))


@dataclass(frozen=True)
class Writer:
    """Writes texts for a model whose tokenizer makes `tokens_per_word` of a word, on average."""

    seed: str
    tokens_per_word: float

    @classmethod
    def of(cls, engine: Service, model: str, seed: str) -> Writer:
        """Count once with the engine's /tokenize. Raises UnansweredError, or UnableError for a useless count."""
        answer = engine.post("/tokenize", {"model": model, "prompt": words(seed, SAMPLE_WORDS)})
        count = answer.get("count") if isinstance(answer, dict) else None
        if not isinstance(count, int) or count < 1:
            raise UnableError(f"the engine's /tokenize counts {count} tokens in {SAMPLE_WORDS} words")
        return cls(seed, count / SAMPLE_WORDS)

    def text(self, name: str, tokens: int) -> str:
        """About `tokens` tokens that begin with the seed and `name`, so that even the first block is new."""
        head = f"{self.seed} {name} "
        return head + words(head, max(1, round(tokens / self.tokens_per_word)))

    def more(self, name: str, tokens: int) -> str:
        """About `tokens` tokens to go on with; the seed and `name` decide which."""
        return words(f"{self.seed} {name}", max(1, round(tokens / self.tokens_per_word)))
