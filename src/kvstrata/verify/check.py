"""A check is data: what was asked, of which host, what was expected, what was seen.

A layer asks a `Question` with a probe, a function that returns what it saw, or raises
`UnmetError` (it saw something else), `NotCheckedError` (nothing to ask here) or `UnableError` (it couldn't look).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from kvstrata.verify.document import CheckRow
from kvstrata.verify.document import Json as Json  # the layers take it from here


class Layer(StrEnum):
    """Where in the stack a check looks, from the bottom up."""

    HOST = "host"
    STORE = "store"
    CACHE = "cache"
    ENGINE = "engine"
    ROUTER = "router"
    EDGE = "edge"
    TIERS = "tiers"
    THROUGHPUT = "throughput"
    FAULTS = "faults"


class Status(StrEnum):
    """How a check ended. SKIP is something not proven; ERROR is something that couldn't be looked at."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    FAIL = "fail"
    SKIP = "skip"
    ERROR = "error"


class UnmetError(Exception):
    """The expectation is not met; the message is what was seen instead."""


class NotCheckedError(Exception):
    """This was not checked; the message says what is thereby not proven."""


class UnableError(Exception):
    """The check could not look; the message says why."""


@dataclass(frozen=True)
class Check:
    """A finished check. `duration_s` is in seconds; `data` holds measured numbers for machines."""

    id: str
    layer: Layer
    host: str
    what: str
    expected: str
    seen: str
    status: Status
    hint: str
    duration_s: float = 0.0
    data: dict[str, Json] = field(default_factory=dict)

    @property
    def bad(self) -> bool:
        """Whether the check failed or could not look."""
        return self.status in (Status.FAIL, Status.ERROR)

    def as_json(self) -> CheckRow:
        """The check as a flat JSON object."""
        return {
            "id": self.id,
            "layer": self.layer.value,
            "host": self.host,
            "what": self.what,
            "expected": self.expected,
            "seen": self.seen,
            "status": self.status.value,
            "hint": self.hint,
            "duration_s": round(self.duration_s, 3),
            "data": self.data,
        }


@dataclass(frozen=True)
class Question:
    """A check before it is asked. `hint` is the command that shows more."""

    id: str
    layer: Layer
    host: str
    what: str
    expected: str
    hint: str

    def ask(self, probe: Callable[[], str], data: dict[str, Json] | None = None) -> Check:
        """Run `probe`; it returns what it saw when that is as expected. `data` may be filled by it."""
        started = time.monotonic()
        try:
            seen, status = probe(), Status.PASS
        except UnmetError as unmet:
            seen, status = str(unmet), Status.FAIL
        except NotCheckedError as skipped:
            seen, status = f"NOT CHECKED: {skipped}", Status.SKIP
        except UnableError as unable:
            seen, status = f"could not check: {unable}", Status.ERROR
        except Exception as bug:
            # One surprising answer must not cost the rest of the report.
            seen, status = f"could not check: unexpected {type(bug).__name__}: {bug}", Status.ERROR
        return self._ended(status, seen, time.monotonic() - started, data)

    def skip(self, why: str) -> Check:
        """Say that this isn't checked, and why."""
        return self._ended(Status.SKIP, f"NOT CHECKED: {why}", 0.0, None)

    def error(self, why: str, duration_s: float = 0.0) -> Check:
        """Say that this couldn't be looked at, and why."""
        return self._ended(Status.ERROR, f"could not check: {why}", duration_s, None)

    def _ended(self, status: Status, seen: str, duration_s: float, data: dict[str, Json] | None) -> Check:
        return Check(
            self.id,
            self.layer,
            self.host,
            self.what,
            self.expected,
            seen,
            status,
            self.hint,
            duration_s,
            {} if data is None else data,
        )


@dataclass(frozen=True)
class Group:
    """The checks of one layer on one host, finished together. `duration_s` is in seconds."""

    layer: Layer
    host: str
    checks: tuple[Check, ...]
    duration_s: float
