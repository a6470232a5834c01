"""The form of the document that `--json` prints. docs/verify.md explains it, docs/verify.schema.json is made of it."""

from __future__ import annotations

from typing import Literal, TypedDict

type Json = str | int | float | bool | list[Json] | dict[str, Json] | None

# What layers measured, by a name of theirs: rows of raw samples.
type Measured = dict[str, list[dict[str, Json]]]

SCHEMA: Literal[2] = 2

StatusName = Literal["pass", "fail", "skip", "error"]


class CheckRow(TypedDict):
    """A check that was made, or that was not."""

    id: str
    layer: str
    host: str
    what: str
    expected: str
    seen: str
    status: StatusName
    hint: str
    duration_s: float
    data: dict[str, Json]


class StepRow(TypedDict):
    """One sending of the proof's prompt."""

    name: str
    node: str
    ttft_s: float
    prompt_tokens: int
    hit_tokens: int
    l1_tokens: int
    l2_tokens: int


class TiersRow(TypedDict):
    """The proof of the tiers: of this run, or the one that still holds."""

    ran: bool
    proven_at: str | None
    seed: str | None
    fingerprint: str | None
    steps: list[StepRow]


class TimingRow(TypedDict):
    """How long a layer took on a host."""

    layer: str
    host: str
    duration_s: float


class VersionsRow(TypedDict):
    """What ran here, and what nodes, stores and engines said of themselves."""

    kvstrata: str
    python: str
    found: list[dict[str, Json]]


# `pass` is no name that a class could give to a field.
CountsRow = TypedDict("CountsRow", {"pass": int, "fail": int, "skip": int, "error": int})


class Document(TypedDict):
    """A whole verification."""

    schema: Literal[2]
    ok: bool
    verdict: Literal["ok", "failed", "could_not_check"]
    exit_code: Literal[0, 1, 2]
    site: str | None
    profile: str | None
    nodes: list[str]
    started_at: str | None
    duration_s: float
    counts: CountsRow
    failures: list[CheckRow]
    skipped: list[CheckRow]
    checks: list[CheckRow]
    tiers: TiersRow | None
    measured: dict[str, list[dict[str, Json]]]
    timings: list[TimingRow]
    versions: VersionsRow


def stable(what: str, seed: str | None) -> str:
    """What a check asks, the same in every run: without the seed that only one run's prompt was made from."""
    return what.replace(f" (seed {seed})", "") if seed else what
