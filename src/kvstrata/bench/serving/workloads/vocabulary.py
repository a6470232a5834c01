"""The tokens that prompts are made of: ids of a model's vocabulary which, as text, come back as the same tokens."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kvstrata.bench.errors import BenchError

# How tokens say a space: byte-level BPE (GPT-2, Llama 3, Qwen) with the first, SentencePiece with the second.
_WORD = re.compile(r"[\u0120\u2581][a-z]+")
_PRINTABLE = re.compile(r"[!-~]")
_ENOUGH_WORDS = 256
# Without a tokenizer the first and last ids are left out: special tokens are there.
_EDGE = 256


@dataclass(frozen=True)
class Vocabulary:
    """Token ids to draw from. text: what each is as text, where a tokenizer was there to tell.

    A prompt of these ids is exactly as many tokens as ids. As text too: words that begin with a space are tokens of
    their own whatever stands beside them, and so are the single characters of a byte-level tokenizer without merges.
    """

    ids: tuple[int, ...]
    text: Mapping[int, str] = field(default_factory=dict)
    note: str | None = None

    def draw(self, rng: random.Random, tokens: int) -> tuple[int, ...]:
        """Return that many ids."""
        return tuple(rng.choices(self.ids, k=tokens))

    def to_text(self, ids: Sequence[int]) -> str:
        """Return the text of ids of this vocabulary.

        Raises:
            BenchError: the texts are not known.
        """
        if not self.text:
            raise BenchError(f"prompts as text need a tokenizer.json beside the model: {self.note}")
        return "".join(self.text[token] for token in ids)


def of_model(folder: Path) -> Vocabulary:
    """Return the vocabulary of the model in a folder: from its tokenizer.json, else from config.json's vocab_size.

    Raises:
        BenchError: neither says anything.
    """
    tokenizer = folder / "tokenizer.json"
    if tokenizer.is_file() and (found := _of_tokenizer(_read(tokenizer))):
        return found
    config = folder / "config.json"
    size = _read(config).get("vocab_size") if config.is_file() else None
    if not isinstance(size, int) or size < 2:
        raise BenchError(
            f"{folder}: no tokens to draw prompts from; allowed: a tokenizer.json, or a vocab_size in config.json"
        )
    edge = _EDGE if size > 4 * _EDGE else 0
    return Vocabulary(tuple(range(edge, size - edge)), note=f"no usable tokenizer.json in {folder.name}")


def _of_tokenizer(tokenizer: Mapping[str, Any]) -> Vocabulary | None:
    vocab = tokenizer.get("model", {}).get("vocab", {})
    # Unigram models list [token, score]; the place is the id.
    tokens = vocab if isinstance(vocab, dict) else {entry[0]: index for index, entry in enumerate(vocab)}
    added = {entry["content"] for entry in tokenizer.get("added_tokens", [])}
    words = {number: " " + word[1:] for word, number in tokens.items() if _WORD.fullmatch(word) and word not in added}
    letters = {number: word for word, number in tokens.items() if _PRINTABLE.fullmatch(word) and word not in added}
    if len(words) >= _ENOUGH_WORDS:
        return Vocabulary(tuple(sorted(words)), words)
    if letters and not tokenizer["model"].get("merges"):
        return Vocabulary(tuple(sorted(letters)), letters)
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BenchError(f"{path}: {error}") from error
    return content if isinstance(content, dict) else {}
