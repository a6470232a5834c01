"""What is measured, as flat rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

SCHEMA = 1


class Case(StrEnum):
    """What happened to the conversation between its two turns."""

    STAYED = "not moved"
    DRAINED = "moved by a drain"
    FRESH = "in no cache"
    LOAD_MOVED = "moved by load"
    LOAD_STAYED = "not moved under load"
    LOAD_FRESH = "in no cache, under load"


@dataclass(frozen=True)
class Turn:
    """The second turn of one conversation. Everything but the time to the first token is in tokens.

    `came_from` is the node of its first turn, None for a conversation that has none; `went_to` the node that answered.
    """

    case: Case
    repeat: int
    seed: str
    came_from: str | None
    went_to: str
    ttft_s: float
    prompt_tokens: int
    own_cache: int
    l1: int
    l2: int
    computed: int


@dataclass(frozen=True)
class Throughput:
    """One load over some nodes. `wall_s` is from the first request's sending to the last one's end."""

    nodes: tuple[str, ...]
    repeat: int
    seed: str
    requests: int
    failed: int
    wall_s: float
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Results:
    """One run of the benchmark. `settings`, `host` and `versions` say of what."""

    site: str
    started_at: str
    duration_s: float
    seed: str
    settings: dict[str, Any]
    host: dict[str, Any]
    versions: dict[str, Any]
    turns: tuple[Turn, ...]
    throughput: tuple[Throughput, ...]
    notes: tuple[str, ...]

    @property
    def incomplete(self) -> bool:
        """Whether it ended before its time."""
        return any(note.startswith("INCOMPLETE") for note in self.notes)

    def as_json(self) -> dict[str, Any]:
        """The run as it is written."""
        return {"schema": SCHEMA, **asdict(self)}
