"""The documents of earlier runs: one file each in `verify/` of the site's state folder, the newest ones kept."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from kvstrata.verify.document import SCHEMA, Document
from kvstrata.verify.schema import misfits

FOLDER = "verify"
DEFAULT = 50
# The second run of one second ends in -2.
_NAME = re.compile(r"(\d{8}T\d{6}Z)(?:-(\d+))?\.json")


class UnreadableError(ValueError):
    """A file that holds no document of verify; the message names it."""


def keep(state_dir: Path, document: Document, newest: int) -> Path:
    """Write the document as a file of its own, then delete all such files but the `newest` ones; raises OSError.

    Nothing is deleted that is not both named like a kept run and a document of verify.
    """
    folder = state_dir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    began = document["started_at"]
    time = (datetime.fromisoformat(began) if began else datetime.now(UTC)).astimezone(UTC)
    path = _write(folder, f"{time:%Y%m%dT%H%M%SZ}", json.dumps(document, indent=2) + "\n")
    # A clock that was set back makes this run look old; it is kept even so.
    others = [other for other in runs(state_dir) if other != path]
    for old in others[: max(0, len(others) + 1 - max(1, newest))]:
        if _is_run(old):
            old.unlink(missing_ok=True)
    return path


def runs(state_dir: Path) -> list[Path]:
    """Return the kept runs, the oldest first."""
    folder = state_dir / FOLDER
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        match = _NAME.fullmatch(path.name)
        if match and path.is_file() and not path.is_symlink():
            found.append((match[1], int(match[2] or 1), path))
    return [path for _, _, path in sorted(found)]


def last(state_dir: Path, site: str) -> tuple[Path, Document] | None:
    """Return the newest kept run of the site that can be read, or None."""
    return next(_readable(state_dir, site), None)


def load(path: Path) -> Document:
    """Return the document of a file.

    Raises:
        UnreadableError: when there is none in it.
    """
    try:
        value = json.loads(path.read_text())
    except OSError as error:
        raise UnreadableError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise UnreadableError(f"{path}: no JSON: {error}") from error
    value = _as_now(value)
    if wrong := misfits(value):
        raise UnreadableError(f"{path}: no document of kvstrata verify: {'; '.join(wrong[:3])}")
    return cast(Document, value)


def _as_now(value: Any) -> Any:
    """A document of an earlier schema in today's form: schema 1 had no `measured`."""
    if isinstance(value, dict) and value.get("schema") == 1:
        return {**value, "schema": SCHEMA, "measured": {}}
    return value


def _readable(state_dir: Path, site: str) -> Iterator[tuple[Path, Document]]:
    for path in reversed(runs(state_dir)):
        try:
            document = load(path)
        except UnreadableError:
            # Perhaps of another version of kvstrata; the one before may do.
            continue
        if document["site"] == site:
            yield path, document


def _write(folder: Path, stem: str, text: str) -> Path:
    """Write a file that is not there yet, all or nothing."""
    temporary = folder / f".{stem}.{os.getpid()}"
    temporary.write_text(text)
    try:
        number = 1
        while True:
            path = folder / (f"{stem}.json" if number == 1 else f"{stem}-{number}.json")
            try:
                path.hardlink_to(temporary)
            except FileExistsError:
                number += 1
            else:
                return path
    finally:
        temporary.unlink(missing_ok=True)


def _is_run(path: Path) -> bool:
    """Whether the file is a document of verify, of whatever schema."""
    try:
        value: Any = json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(value, dict) and {"schema", "verdict", "checks"} <= value.keys()
