"""Replay of traces in Mooncake's format (github.com/kvcache-ai/Mooncake, FAST25-release/traces).

One JSON object a line: timestamp (ms since the begin), input_length and output_length (tokens), hash_ids: one id for
every 512 tokens of the prompt, the last may be for fewer. Equal ids stand for equal tokens after equal tokens, so a
prompt is made of one fixed block of tokens for each id. The text of the real requests is not in a trace.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import overload

from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving.model import Conversation, Turn
from kvstrata.bench.serving.workloads.vocabulary import Vocabulary

BLOCK = 512
SAMPLE = Path(__file__).with_name("mooncake_sample.jsonl")
_BLOCKS_HELD = 4096


@dataclass(frozen=True)
class Settings:
    """Which trace, and how: the defaults replay it as it was recorded.

    file: a path; empty for the sample that comes with kvstrata. speed: 2 sends in half of the time. requests: the first
    so many only; 0 for all. block: tokens for each hash id; fewer than 512 shrink all prompts alike (answers stay), for
    machines that could not serve them.
    """

    file: str = ""
    speed: float = 1.0
    requests: int = 0
    block: int = BLOCK


@dataclass(frozen=True)
class Entry:
    """One request of a trace: when (ms), lengths in tokens, and what its prompt is made of."""

    timestamp: float
    input_length: int
    output_length: int
    hash_ids: tuple[int, ...]


class HashedPrompt(Sequence[int]):
    """The token ids of a prompt, made when they are asked for: a whole trace's would not fit in memory."""

    def __init__(self, hash_ids: tuple[int, ...], tokens: int, block: Callable[[int], tuple[int, ...]]) -> None:
        """`block` gives an id's tokens; the prompt is the first `tokens` of all blocks in a row."""
        self._hash_ids, self._tokens, self._block = hash_ids, tokens, block

    def __len__(self) -> int:
        """Return the number of tokens."""
        return self._tokens

    def __iter__(self) -> Iterator[int]:
        """Yield the ids."""
        left = self._tokens
        for number in self._hash_ids:
            block = self._block(number)
            yield from block if left >= len(block) else block[:left]
            left -= len(block)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[int, ...]: ...
    def __getitem__(self, index: int | slice) -> int | tuple[int, ...]:
        """Return one id or some; this makes all of them."""
        return tuple(self)[index]


def build(settings: Settings, vocabulary: Vocabulary, seed: int) -> tuple[Conversation, ...]:
    """Return one request for each line, due at its timestamp.

    Raises:
        BenchError: a file that cannot be read, or a line that is not in the format.
    """
    if settings.speed <= 0:
        raise BenchError(f"workload trace: speed: given {settings.speed:g}; allowed: a number above 0")
    entries = read(Path(settings.file) if settings.file else SAMPLE)
    if settings.requests:
        entries = entries[: settings.requests]

    @lru_cache(maxsize=_BLOCKS_HELD)
    def block(number: int) -> tuple[int, ...]:
        rng = random.Random(f"trace:{seed}:{number}")  # noqa: S311 - a workload, no secret
        return vocabulary.draw(rng, settings.block)

    begin = entries[0].timestamp
    found = []
    for number, entry in enumerate(entries):
        tokens = _scaled(entry.input_length, settings.block)
        turn = Turn(HashedPrompt(entry.hash_ids, tokens, block), tokens, entry.output_length)
        due_s = (entry.timestamp - begin) / 1000 / settings.speed
        found.append(Conversation(f"trace-{number}", (turn,), due_s))
    return tuple(found)


def read(path: Path) -> list[Entry]:
    """Return a trace's requests by timestamp.

    Raises:
        BenchError: the file cannot be read or is empty, or a line is not in the format: it names file, line and field,
            what was given and what is allowed.
    """
    try:
        with path.open() as lines:
            found = list(parse(lines, str(path)))
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"trace {path}: {error}") from error
    if not found:
        raise BenchError(f"trace {path}: no request in it; allowed: one JSON object a line")
    return sorted(found, key=lambda entry: entry.timestamp)


def parse(lines: Iterable[str], name: str) -> Iterator[Entry]:
    """Yield the requests of a trace's lines; empty lines are skipped.

    Raises:
        BenchError: as read.
    """
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _entry(line, f"trace {name}, line {number}")


def _entry(line: str, where: str) -> Entry:
    try:
        content = json.loads(line)
    except ValueError:
        raise BenchError(f"{where}: given {_short(line.strip())}; allowed: a JSON object") from None
    if not isinstance(content, dict):
        raise BenchError(f"{where}: given {_short(line.strip())}; allowed: a JSON object")
    timestamp = _field(content, "timestamp", where, _is_time, "a number of milliseconds from 0")
    length = _field(content, "input_length", where, _is_length, "a whole number of tokens from 1")
    output = _field(content, "output_length", where, _is_length, "a whole number of tokens from 1")
    blocks = math.ceil(length / BLOCK)
    allowed = f"{blocks} whole numbers from 0, one for every {BLOCK} of input_length's {length} tokens"
    ids = _field(content, "hash_ids", where, lambda value: _is_ids(value, blocks), allowed)
    return Entry(timestamp, length, output, tuple(ids))


def _field[T](content: Mapping[str, T], name: str, where: str, good: Callable[[object], bool], allowed: str) -> T:
    if name not in content:
        raise BenchError(f"{where}: {name}: not given; allowed: {allowed}")
    if not good(content[name]):
        raise BenchError(f"{where}: {name}: given {_short(json.dumps(content[name]))}; allowed: {allowed}")
    return content[name]


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _is_length(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_ids(value: object, blocks: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == blocks
        and all(isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in value)
    )


def _scaled(tokens: int, block: int) -> int:
    """Return the length of a prompt whose blocks are of another size: whole blocks stay whole."""
    return max(1, tokens * block // BLOCK)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
