"""What a report of `verify` says about a planted fault. Pure: a document in, a verdict out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One fault of the table. `named` is what its check said, `others` the further checks that failed."""

    fault: str
    check: str
    how: str
    named: str
    others: tuple[str, ...]
    follows: tuple[str, ...]
    """Checks that the report tells as consequences of the fault."""
    well_after: bool | None
    """Whether everything passed again once it was taken away; None where that was not looked at."""
    seconds: float
    not_planted: str = ""
    """Why it could not be planted, where it could not."""

    @property
    def ok(self) -> bool:
        """Whether its check named it, nothing else failed, and all was well again."""
        return bool(self.named) and not self.others and self.well_after is not False and not self.not_planted

    def as_json(self) -> dict[str, Any]:
        """The row as a flat object."""
        return {**asdict(self), "ok": self.ok}


def failures(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The checks that failed or could not be made."""
    return [check for check in document["checks"] if check["status"] in ("fail", "error")]


def read(document: Mapping[str, Any], check: str, host: str | None) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """What the check said of the fault (nothing when it did not), what else failed, and what was told to follow."""
    bad = failures(document)
    mine = [
        entry for entry in bad if entry["id"] == check and entry["status"] == "fail" and host in (None, entry["host"])
    ]
    others = [f"{entry['id']} on {entry['host']}: {entry['seen']}" for entry in bad if entry not in mine]
    follows = [
        f"{entry['id']} on {entry['host']}"
        for entry in document["checks"]
        if entry["status"] == "skip" and "follows from" in entry["seen"]
    ]
    return "; ".join(entry["seen"] for entry in mine), tuple(others), tuple(follows)


def markdown(rows: Sequence[Row]) -> str:
    """The table of docs/verify.md."""
    lines = ["| Fault | How it is planted | Named by | It says | Other failures |", "|---|---|---|---|---|"]
    for row in rows:
        said = f"NOT PLANTED: {row.not_planted}" if row.not_planted else row.named or "**not named**"
        others = "<br>".join(row.others) or "none"
        cells = (row.fault, row.how, f"`{row.check}`", said, others)
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
