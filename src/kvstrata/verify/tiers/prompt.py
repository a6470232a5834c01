"""A prompt that no cache has ever seen, of a wanted length in the model's own tokens."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from kvstrata.verify.check import UnableError
from kvstrata.verify.http import Service

# The search ends when the count is at most this far above the target.
SLACK_TOKENS = 32
ATTEMPTS = 12
_SYLLABLES = ("ka", "lo", "mi", "nu", "re", "so", "ti", "va", "be", "du", "fe", "go", "hi", "ju", "pa", "we")


@dataclass(frozen=True)
class Prompt:
    """A text, how many tokens the engine makes of it, and the seed it can be built from again."""

    text: str
    tokens: int
    seed: str


def warm_up(seed: str) -> str:
    """A prompt of a few tokens, less than any chunk: it warms the engine and leaves the cache alone."""
    return f"warm {seed[:8]}"


def build(service: Service, model: str, target_tokens: int, seed: str) -> Prompt:
    """A prompt of at least `target_tokens` tokens, at most 32 more where the tokenizer allows it.

    The seed stands at its very beginning, so that even the first chunk is new to every cache.
    Raises UnableError when the tokenizer's answers lead nowhere.
    """
    words = max(1, target_tokens // 4)
    best: Prompt | None = None
    for _ in range(ATTEMPTS):
        text = _text(seed, words)
        tokens = _count(service, model, text)
        if tokens < 1:
            raise UnableError(f"the engine's /tokenize counts {tokens} tokens in {len(text)} characters")
        if tokens >= target_tokens and (best is None or tokens < best.tokens):
            best = Prompt(text, tokens, seed)
        if target_tokens <= tokens <= target_tokens + SLACK_TOKENS:
            break
        # A little over, so that the search ends just above the target and not just below.
        goal = target_tokens + SLACK_TOKENS / 2
        # Never more than twice in one go: a tokenizer that hardly counts must not make an endless text.
        words = max(1, min(words * 2, math.ceil(words * goal / tokens)))
    if best is None:
        raise UnableError(f"no prompt of {target_tokens} tokens could be built with the engine's /tokenize")
    return best


def _text(seed: str, words: int) -> str:
    # Not for secrets: it must be the same text again for the same seed.
    choose = random.Random(seed)  # noqa: S311
    body = ("".join(choose.choices(_SYLLABLES, k=choose.randint(1, 3))) for _ in range(words))
    return f"{seed} {' '.join(body)}"


def _count(service: Service, model: str, text: str) -> int:
    return int(service.post("/tokenize", {"model": model, "prompt": text})["count"])
