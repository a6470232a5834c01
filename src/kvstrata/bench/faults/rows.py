"""What a case saw, and the row that says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

OK, FAILED, NOT_CHECKED, NOT_APPLICABLE = "ok", "FAILED", "NOT CHECKED", "n/a"

BACK_WITHIN_S = 5.0
"""Service is to be back so soon after the store is."""
SLACK_S = 0.5
"""What an operation may take beyond its deadline: the adapter looks at its clock ten times a second, and the machine
may be busy with something else for a moment."""


@dataclass(frozen=True)
class Row:
    """One fault, one adapter, one engine."""

    fault: str
    what: str
    """The fault in a few words."""
    adapter: str
    engine: str
    verdict: str
    """`ok`, `FAILED`, `NOT CHECKED` (this machine cannot make the fault) or `n/a` (the adapter cannot meet it)."""
    worst_operation: str = ""
    """The kind of operation that used most of its deadline, or more than that."""
    worst_s: float = 0.0
    deadline_s: float | None = None
    """Of that operation; None where the adapter has none."""
    wrong_chunks: int = 0
    """Chunks that were reported as loaded, with bytes that are not theirs."""
    hung: bool = False
    """An operation never ended, or the process had to be killed."""
    crashed: bool = False
    """The process that the adapter ran in did."""
    back_s: float | None = None
    """Seconds from the store's return until a chunk could be stored, found and loaded; None: not in `watched_s`."""
    watched_s: float | None = None
    """How long that was awaited; None where the store was never away."""
    others_hit: int = 0
    """Hits on endpoints that had no fault, while another had ..."""
    others_asked: int = 0
    """... of so many."""
    broken: tuple[str, ...] = ()
    """What else should have held and did not."""
    notes: tuple[str, ...] = ()
    figures: dict[str, float] = field(default_factory=dict)
    """What the case counted besides."""
    seconds: float = 0.0
    """That the case took."""

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON-safe values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Row:
        """Return the row that `to_json` made."""
        return cls(**{**values, "broken": tuple(values["broken"]), "notes": tuple(values["notes"])})


@dataclass
class Seen:
    """What is collected while a case runs."""

    worst_operation: str = ""
    worst_s: float = 0.0
    deadline_s: float | None = None
    wrong_chunks: int = 0
    hung: str = ""
    back_s: float | None = None
    watched_s: float | None = None
    others_hit: int = 0
    others_asked: int = 0
    broken: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)

    def operation(self, kind: str, seconds: float, deadline_s: float | None) -> None:
        """Keep the operation that used most of its deadline, or took longest where there is none."""
        if seconds / (deadline_s or 1.0) >= self.worst_s / (self.deadline_s or 1.0):
            self.worst_operation, self.worst_s, self.deadline_s = kind, seconds, deadline_s
        if deadline_s is not None and seconds > deadline_s + SLACK_S:
            self.broken.append(f"{kind} took {seconds:.2f} s, deadline {deadline_s:g} s")

    def require(self, holds: bool, what: str) -> None:
        """Note `what` as broken unless it holds."""
        if not holds:
            self.broken.append(what)

    def row(self, fault: str, what: str, adapter: str, engine: str, seconds: float) -> Row:
        """Judge what was seen."""
        broken = list(self.broken)
        if self.hung:
            broken.append(self.hung)
        if self.wrong_chunks:
            broken.append(f"{self.wrong_chunks} chunks with wrong bytes")
        if self.watched_s is not None and self.back_s is None:
            broken.append(f"not back within {self.watched_s:g} s")
        if self.back_s is not None and self.back_s > BACK_WITHIN_S:
            broken.append(f"back after {self.back_s:.1f} s, allowed {BACK_WITHIN_S:g} s")
        if self.others_hit < self.others_asked:
            broken.append(f"other endpoints: {self.others_hit} hits of {self.others_asked}")
        return Row(
            fault=fault,
            what=what,
            adapter=adapter,
            engine=engine,
            verdict=FAILED if broken else OK,
            worst_operation=self.worst_operation,
            worst_s=round(self.worst_s, 3),
            deadline_s=self.deadline_s,
            wrong_chunks=self.wrong_chunks,
            hung=bool(self.hung),
            back_s=None if self.back_s is None else round(self.back_s, 2),
            watched_s=self.watched_s,
            others_hit=self.others_hit,
            others_asked=self.others_asked,
            broken=tuple(broken),
            notes=tuple(self.notes),
            figures=dict(self.figures),
            seconds=round(seconds, 1),
        )
