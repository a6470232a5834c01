"""What a model's weights were when its site was last well, kept as JSON in the site's state folder."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvstrata.verify.weights.files import ModelFiles

FILE = "models.json"
SCHEMA = 1
# A site changes its model now and then: the newest records stay.
KEEP = 20


@dataclass(frozen=True)
class Known:
    """The files and answers of a model. `answers` are log probabilities of the tokens of the prompt `prompt`,
    which is a sha256; None where no engine gave any. `recorded_at` is an ISO time in UTC.
    """

    name: str
    revision: str
    recorded_at: str
    files: ModelFiles
    prompt: str
    answers: tuple[float, ...] | None


def load(folder: Path) -> list[Known]:
    """Every record, the oldest first; none when the file is not there or cannot be read."""
    try:
        document: dict[str, Any] = json.loads((folder / FILE).read_text())
        if document["schema"] != SCHEMA:
            return []
        return [_known(row) for row in document["models"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def find(records: Sequence[Known], name: str, revision: str) -> Known | None:
    """The record of that model and revision."""
    return next((known for known in records if (known.name, known.revision) == (name, revision)), None)


def save(folder: Path, records: Sequence[Known]) -> None:
    """Replace all records, all or nothing; raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{FILE}.{os.getpid()}"
    document = {"schema": SCHEMA, "models": [_row(known) for known in records[-KEEP:]]}
    temporary.write_text(json.dumps(document, indent=2) + "\n")
    temporary.replace(folder / FILE)


def _row(known: Known) -> dict[str, Any]:
    return {
        "name": known.name,
        "revision": known.revision,
        "recorded_at": known.recorded_at,
        "files": {name: {"size": size, "sha256": sha256} for name, (size, sha256) in known.files.files.items()},
        "prompt": known.prompt,
        "answers": None if known.answers is None else list(known.answers),
    }


def _known(row: dict[str, Any]) -> Known:
    answers = row["answers"]
    return Known(
        name=row["name"],
        revision=row["revision"],
        recorded_at=row["recorded_at"],
        files=ModelFiles({name: (int(file["size"]), str(file["sha256"])) for name, file in row["files"].items()}),
        prompt=row["prompt"],
        answers=None if answers is None else tuple(float(value) for value in answers),
    )
