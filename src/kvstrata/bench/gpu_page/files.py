"""The files that a page is made of: what each holds, by its schema."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kvstrata.bench import l2_results, results
from kvstrata.bench.errors import BenchError
from kvstrata.bench.gpu_page import units
from kvstrata.bench.serving import record, report_file
from kvstrata.bench.serving.record import Record

ENDINGS = (".json", ".json.gz")
NOTES = ".notes.md"


@dataclass(frozen=True)
class Source:
    """One file. `stem` is its name without ending, which its plots carry too."""

    name: str
    stem: str
    schema: str
    notes: str
    """What stands beside it in STEM.notes.md, for a reader: what was tried, what would close a gap; empty without."""
    content: Any = field(repr=False)
    """A Record of bench serve, a Run of bench l2 or store, Units, or the JSON of what this page has no section for."""


def stem_of(path: Path) -> str:
    """Return a file's name without its ending."""
    ending = next((ending for ending in sorted(ENDINGS, key=len, reverse=True) if path.name.endswith(ending)), "")
    return path.name.removesuffix(ending)


def read_sources(paths: Sequence[Path]) -> list[Source]:
    """Return the files in the order of their stems.

    Raises:
        BenchError: one cannot be read, holds no object with a schema, or two have the same stem.
    """
    found = sorted(map(_source, paths), key=lambda source: source.stem)
    stems = [source.stem for source in found]
    if twice := sorted({stem for stem in stems if stems.count(stem) > 1}):
        raise BenchError(f"{', '.join(twice)}: two files; allowed: each run once, packed or not")
    return found


def _source(path: Path) -> Source:
    stem, beside = stem_of(path), path.with_name(stem_of(path) + NOTES)
    form = report_file.read_object(path)
    schema = str(form.get("schema", "none"))
    content: Any = form
    try:
        if schema == record.SCHEMA:
            content = report_file.read(path)
        elif schema == l2_results.SCHEMA:
            content = l2_results.from_json(form)
        elif schema == results.SCHEMA:
            content = results.from_json(form)
        elif schema == units.SCHEMA:
            content = units.from_json(form)
    except (KeyError, TypeError) as error:
        raise BenchError(f"{path}: {schema}: {error!r}") from error
    try:
        notes = beside.read_text().strip() if beside.exists() else ""
    except OSError as error:
        raise BenchError(f"{beside}: {error.strerror or error}") from error
    return Source(path.name, stem, schema, notes, content)


def records(sources: Sequence[Source]) -> list[tuple[Source, Record]]:
    """Return the runs of bench serve among them."""
    return [(source, source.content) for source in sources if isinstance(source.content, Record)]
