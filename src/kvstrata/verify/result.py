"""The whole of a verification, its verdict, and its document for machines."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from importlib import metadata
from typing import Final, Literal

from kvstrata.cluster import Cluster
from kvstrata.verify.check import Check, Group, Json, Status
from kvstrata.verify.document import SCHEMA, CheckRow, CountsRow, Document, Measured, VersionsRow
from kvstrata.verify.tiers.layer import TiersOutcome


class Verdict(IntEnum):
    """The verdict as the exit status."""

    OK = 0
    FAILED = 1
    COULD_NOT_CHECK = 2

    @property
    def label(self) -> Literal["ok", "failed", "could_not_check"]:
        """Its name in the document."""
        return _LABELS[self]

    @property
    def code(self) -> Literal[0, 1, 2]:
        """The exit status."""
        return _CODES[self]


_LABELS: Final[dict[Verdict, Literal["ok", "failed", "could_not_check"]]] = {
    Verdict.OK: "ok",
    Verdict.FAILED: "failed",
    Verdict.COULD_NOT_CHECK: "could_not_check",
}
_CODES: Final[dict[Verdict, Literal[0, 1, 2]]] = {Verdict.OK: 0, Verdict.FAILED: 1, Verdict.COULD_NOT_CHECK: 2}


@dataclass(frozen=True)
class Result:
    """Everything that was asked and seen. `duration_s` is in seconds."""

    cluster: Cluster
    nodes: tuple[str, ...]
    checks: tuple[Check, ...]
    groups: tuple[Group, ...]
    tiers: TiersOutcome
    started_at: str
    duration_s: float
    measured: Measured = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """A failed check outweighs one that could not look: it is certain."""
        if self._with(Status.FAIL):
            return Verdict.FAILED
        return Verdict.COULD_NOT_CHECK if self._with(Status.ERROR) else Verdict.OK

    def count(self, status: Status) -> int:
        """How many checks ended so."""
        return len(self._with(status))

    def as_json(self) -> Document:
        """The document of `--json`; its form changes only with its `schema`."""
        return {
            "schema": SCHEMA,
            "ok": self.verdict is Verdict.OK,
            "verdict": self.verdict.label,
            "exit_code": self.verdict.code,
            "site": self.cluster.site,
            "profile": self.cluster.profile,
            "nodes": list(self.nodes),
            "started_at": self.started_at,
            "duration_s": round(self.duration_s, 3),
            "counts": _counts(self.checks),
            "failures": [check.as_json() for check in self.checks if check.bad],
            "skipped": [check.as_json() for check in self._with(Status.SKIP)],
            "checks": [check.as_json() for check in self.checks],
            "tiers": self.tiers.as_json(),
            "measured": self.measured,
            "timings": [
                {"layer": group.layer.value, "host": group.host, "duration_s": round(group.duration_s, 3)}
                for group in self.groups
            ],
            "versions": self._versions(),
        }

    def _with(self, status: Status) -> list[Check]:
        return [check for check in self.checks if check.status is status]

    def _versions(self) -> VersionsRow:
        found: list[dict[str, Json]] = []
        for check in self.checks:
            if check.id in ("host.ssh", "store.engine", "engine.health") and check.data:
                found.append({"host": check.host, "of": check.what, **check.data})
        return {"kvstrata": version(), "python": platform.python_version(), "found": found}


def version() -> str:
    """The version of kvstrata that runs."""
    try:
        return metadata.version("kvstrata")
    except metadata.PackageNotFoundError:
        return "unknown"


def could_not_check(inventory: str, why: str) -> Document:
    """The document when there is no result at all: same schema, one failure."""
    failure: CheckRow = {
        "id": "inventory",
        "layer": "inventory",
        "host": "controller",
        "what": inventory,
        "expected": "an inventory that describes a cluster",
        "seen": why,
        "status": Status.ERROR.value,
        "hint": f"ansible-inventory -i {inventory} --graph",
        "duration_s": 0.0,
        "data": {},
    }
    return {
        "schema": SCHEMA,
        "ok": False,
        "verdict": Verdict.COULD_NOT_CHECK.label,
        "exit_code": Verdict.COULD_NOT_CHECK.code,
        "site": None,
        "profile": None,
        "nodes": [],
        "started_at": None,
        "duration_s": 0.0,
        "counts": {"pass": 0, "fail": 0, "skip": 0, "error": 1},
        "failures": [failure],
        "skipped": [],
        "checks": [failure],
        "tiers": None,
        "measured": {},
        "timings": [],
        "versions": {"kvstrata": version(), "python": platform.python_version(), "found": []},
    }


def _counts(checks: Iterable[Check]) -> CountsRow:
    many = Counter(check.status for check in checks)
    return {
        "pass": many[Status.PASS],
        "fail": many[Status.FAIL],
        "skip": many[Status.SKIP],
        "error": many[Status.ERROR],
    }
