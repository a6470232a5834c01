"""Write a bundle: the contents of the sources as one stream, cut into parts; an interrupted run is taken up again."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kvstrata.bundle import standalone
from kvstrata.bundle.sources import Source
from kvstrata.bundle.standalone import MANIFEST, PARTIAL, PROGRAM, SCHEMA, BundleError, Entry, Part, part_name

PROGRESS = "progress.json"
"""Which parts are written, as long as the bundle is not whole."""
SMALLEST_PART = 1 << 20
_BLOCK = 1 << 20

Say = Callable[[str], object]


def write(folder: Path, sources: Sequence[Source], part_bytes: int, about: Mapping[str, Any], say: Say = print) -> str:
    """Write the bundle of `sources` into `folder`; return the sha256 of its manifest.

    A run that was interrupted is taken up again: parts that are whole and of the same files are kept.

    Args:
        folder: new, empty, or left by an interrupted run on the same files.
        sources: what is to be in it, by path.
        part_bytes: size of each part but the last, at least SMALLEST_PART.
        about: more fields for the manifest.
        say: gets a line for each step.

    Raises:
        BundleError: the folder holds something else, or a file changed while this ran.
    """
    if part_bytes < SMALLEST_PART:
        raise BundleError(f"a part of {part_bytes} bytes; allowed: {SMALLEST_PART} or more")
    say(f"reading {len(sources)} files")
    entries = [_entry(source) for source in sources]
    plan = _digest(entries, part_bytes)
    kept = _take_up(folder, plan)
    _note(folder, plan, kept)
    size = sum(entry.size for entry in entries)
    _room(folder, size - sum(part.size for part in kept))
    stream = _Stream(sources, entries)
    parts: list[Part] = []
    for start in range(0, size, part_bytes):
        wanted = min(part_bytes, size - start)
        name = part_name(len(parts))
        part = kept[len(parts)] if len(parts) < len(kept) else None
        if part is None or part.size != wanted or not _whole(folder, part):
            part = _write_part(folder, name, stream.read(start, wanted))
            say(f"{name}: {part.size} bytes")
        parts.append(part)
        _note(folder, plan, [*parts, *kept[len(parts) :]])
    shutil.copyfile(standalone.__file__, folder / PROGRAM)
    (folder / PROGRAM).chmod(0o755)
    document = {
        "schema": SCHEMA,
        **about,
        "part_bytes": part_bytes,
        "parts": [{"name": one.name, "size": one.size, "sha256": one.sha256} for one in parts],
        "files": [
            {"path": one.path, "size": one.size, "sha256": one.sha256, "mode": f"{one.mode:03o}"} for one in entries
        ],
    }
    _replace(folder / MANIFEST, json.dumps(document, indent=1) + "\n")
    (folder / PROGRESS).unlink()
    say("reading the bundle back")
    try:
        return standalone.verify(folder).sha256
    except BundleError as error:
        (folder / MANIFEST).unlink()
        raise BundleError(f"{error}\na file changed while this ran, or {folder} is damaged: begin anew") from error


def _entry(source: Source) -> Entry:
    try:
        status = source.file.stat()
        return Entry(source.path, status.st_size, standalone.sha256_of(source.file), status.st_mode & 0o777)
    except OSError as error:
        raise BundleError(f"{source.file} cannot be read: {error.strerror}") from error


def _digest(entries: Sequence[Entry], part_bytes: int) -> str:
    content = json.dumps([part_bytes, [[one.path, one.size, one.sha256, one.mode] for one in entries]])
    return hashlib.sha256(content.encode()).hexdigest()


def _take_up(folder: Path, plan: str) -> list[Part]:
    """Return the parts that an interrupted run noted; make the folder where there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {path.name for path in folder.iterdir()}
    if not names:
        return []
    if PROGRESS not in names:
        what = "a whole bundle" if MANIFEST in names else "no bundle"
        raise BundleError(
            f"{folder} holds {what} ({', '.join(sorted(names)[:3])}, ...); allowed: a new or empty folder"
        )
    try:
        noted = json.loads((folder / PROGRESS).read_text())
        seen, parts = noted["plan"], [Part(one["name"], one["size"], one["sha256"]) for one in noted["parts"]]
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{folder}/{PROGRESS} cannot be read ({error}); remove the folder and begin anew") from error
    if seen != plan:
        raise BundleError(
            f"{folder} holds an unfinished bundle of other files or parts; remove it, or take another folder"
        )
    return parts


def _whole(folder: Path, part: Part) -> bool:
    path = folder / part.name
    return path.is_file() and path.stat().st_size == part.size and standalone.sha256_of(path) == part.sha256


def _room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise BundleError(f"{folder}: {needed} bytes are to be written, {free} are free")


def _write_part(folder: Path, name: str, blocks: Iterator[bytes]) -> Part:
    seen, size = hashlib.sha256(), 0
    partial = folder / (name + PARTIAL)
    with partial.open("wb") as stream:
        for block in blocks:
            seen.update(block)
            size += len(block)
            stream.write(block)
    partial.rename(folder / name)
    return Part(name, size, seen.hexdigest())


def _note(folder: Path, plan: str, parts: Sequence[Part]) -> None:
    noted = [{"name": one.name, "size": one.size, "sha256": one.sha256} for one in parts]
    _replace(folder / PROGRESS, json.dumps({"plan": plan, "parts": noted}))


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(path.name + PARTIAL)
    partial.write_text(text)
    partial.rename(path)


class _Stream:
    """The contents of all sources, one after the other, readable from any place."""

    def __init__(self, sources: Sequence[Source], entries: Sequence[Entry]) -> None:
        self._files: list[tuple[int, Path, int]] = []
        start = 0
        for source, entry in zip(sources, entries, strict=True):
            self._files.append((start, source.file, entry.size))
            start += entry.size

    def read(self, start: int, size: int) -> Iterator[bytes]:
        """Yield the bytes from `start` on, `size` in all.

        Raises:
            BundleError: a file has become shorter.
        """
        end = start + size
        for begin, file, length in self._files:
            first, last = max(start, begin), min(end, begin + length)
            if first < last:
                yield from _range(file, first - begin, last - first)


def _range(file: Path, start: int, size: int) -> Iterator[bytes]:
    with file.open("rb") as stream:
        stream.seek(start)
        while size:
            block = stream.read(min(size, _BLOCK))
            if not block:
                raise BundleError(f"{file} became shorter while it was read; begin anew")
            size -= len(block)
            yield block
