#!/usr/bin/env python3
"""Check and unpack a bundle of kvstrata, with nothing but Python 3.10 or newer. A copy of this file is in every bundle.

    python3 kvstrata_bundle.py verify DIR [--expect SHA256]
    python3 kvstrata_bundle.py unpack DIR DEST [--expect SHA256]
    python3 kvstrata_bundle.py tree   DEST/trees/NAME FOLDER

A bundle is a folder: manifest.json, parts of one size, and this file. The parts, one after the other, are the contents
of the files that the manifest lists, in its order; there is no archive format in between. `--expect` takes the sha256
of manifest.json that `kvstrata bundle make` printed: with it, what arrives is what was made, and not only undamaged.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import stat
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCHEMA = "kvstrata.bundle/1"
MANIFEST = "manifest.json"
PROGRAM = "kvstrata_bundle.py"
PARTIAL = ".bundle-partial"
"""What the name of a file ends with as long as it is not whole."""
_BLOCK = 1 << 20
_SHA256 = frozenset("0123456789abcdef")


class BundleError(Exception):
    """A bundle is not what it must be, or must not be unpacked there; each line of the message names one reason."""


@dataclass(frozen=True)
class Part:
    """One part of the stream."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Entry:
    """One file in the bundle."""

    path: str
    """Relative, with / between its segments."""
    size: int
    sha256: str
    mode: int
    """Permission bits."""


@dataclass(frozen=True)
class Manifest:
    """What manifest.json says."""

    parts: tuple[Part, ...]
    files: tuple[Entry, ...]
    sha256: str
    """Of manifest.json itself."""
    document: dict[str, Any]


def read_manifest(folder: Path, expect: str = "") -> Manifest:
    """Return the manifest of a bundle, after checking all that can be checked without reading a part.

    Raises:
        BundleError: it is missing, damaged, not the expected one, or lists what must not be unpacked.
    """
    try:
        raw = (folder / MANIFEST).read_bytes()
    except OSError as error:
        raise BundleError(f"{folder}/{MANIFEST} cannot be read: {error.strerror}") from error
    seen = hashlib.sha256(raw).hexdigest()
    if expect and seen != expect.lower():
        raise BundleError(f"{MANIFEST}: sha256 is {seen}, expected is {expect}")
    try:
        document = json.loads(raw)
        if document["schema"] != SCHEMA:
            raise BundleError(f"{MANIFEST}: schema is {document['schema']!r}, allowed is {SCHEMA!r}")
        parts = tuple(Part(str(one["name"]), int(one["size"]), str(one["sha256"])) for one in document["parts"])
        files = tuple(
            Entry(str(one["path"]), int(one["size"]), str(one["sha256"]), int(str(one["mode"]), 8))
            for one in document["files"]
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{MANIFEST} is damaged: {type(error).__name__} {error}") from error
    problems = [*_wrong_parts(parts), *_wrong_files(files)]
    held, listed = sum(part.size for part in parts), sum(entry.size for entry in files)
    if held != listed:
        problems.append(f"{MANIFEST}: the parts have {held} bytes, the files {listed}")
    if problems:
        raise BundleError("\n".join(problems))
    return Manifest(parts, files, seen, document)


def _wrong_parts(parts: Sequence[Part]) -> Iterator[str]:
    for number, part in enumerate(parts):
        if part.name != part_name(number):
            yield f"{MANIFEST}: part {number} is called {part.name!r}, allowed is {part_name(number)}"
        if part.size <= 0 or not _is_sha256(part.sha256):
            yield f"{MANIFEST}: {part.name!r} has no size and sha256"


def _wrong_files(files: Sequence[Entry]) -> Iterator[str]:
    seen: set[str] = set()
    folders: set[str] = set()
    for entry in files:
        reason = unsafe(entry.path)
        if reason:
            yield f"{MANIFEST}: the path {entry.path!r} {reason}"
        if entry.path in seen:
            yield f"{MANIFEST}: {entry.path!r} is there twice"
        seen.add(entry.path)
        segments = entry.path.split("/")
        folders |= {"/".join(segments[:end]) for end in range(1, len(segments))}
        if entry.mode & ~0o777:
            yield f"{MANIFEST}: {entry.path!r} has mode {entry.mode:o}, allowed are permission bits (777)"
        if entry.size < 0 or not _is_sha256(entry.sha256):
            yield f"{MANIFEST}: {entry.path!r} has no size and sha256"
    for path in sorted(seen & folders):
        yield f"{MANIFEST}: {path!r} is a file and a folder"


def part_name(number: int) -> str:
    """Return the name of a part."""
    return f"part.{number:04d}"


def unsafe(path: str) -> str:
    """Return why a path must not be unpacked; empty where it may."""
    if path.startswith("/"):
        return "is absolute; allowed: a relative one"
    if any(segment in ("", ".", "..") for segment in path.split("/")):
        return "has an empty segment, . or ..; allowed: none of them"
    if "\\" in path or not path.isprintable():
        return "has a backslash or a control character; allowed: neither"
    if path.endswith(PARTIAL):
        return f"ends with {PARTIAL}, which is for files that are not whole"
    return ""


def verify(folder: Path, expect: str = "") -> Manifest:
    """Read the whole bundle and return its manifest.

    Raises:
        BundleError: a part is missing, too short or long, damaged, or not of this bundle. Each is named.
    """
    manifest = read_manifest(folder, expect)
    problems = list(_foreign(folder, manifest))
    for part in manifest.parts:
        path = folder / part.name
        if not path.is_file():
            problems.append(f"{part.name} is missing")
        elif path.stat().st_size != part.size:
            problems.append(f"{part.name} has {path.stat().st_size} bytes, {part.size} is right")
    wrong = {line.split(" ")[0] for line in problems}
    sink = _Splitter(manifest.files, _compare)
    for part in manifest.parts:
        if part.name in wrong:
            continue
        seen = hashlib.sha256()
        for block in _blocks(folder / part.name):
            seen.update(block)
            # After a wrong part, no file is where it should be: the parts tell enough then.
            if not problems:
                sink.feed(block)
        if seen.hexdigest() != part.sha256:
            problems.append(f"{part.name} is damaged: sha256 is {seen.hexdigest()}, {part.sha256} is right")
    if problems:
        raise BundleError("\n".join(problems))
    sink.end()
    return manifest


def _foreign(folder: Path, manifest: Manifest) -> Iterator[str]:
    known = {MANIFEST, PROGRAM, *(part.name for part in manifest.parts)}
    for path in sorted(folder.iterdir()):
        if path.name not in known:
            yield f"{path.name} is not of this bundle, which is {MANIFEST}, {PROGRAM} and {len(manifest.parts)} parts"


Receiver = Callable[[Entry], "contextlib.AbstractContextManager[Callable[[bytes], object]]"]


class _Splitter:
    """Cuts the stream into files: opens a receiver for each, in order, and gives it its bytes."""

    def __init__(self, files: Sequence[Entry], receiver: Receiver) -> None:
        self._left = iter(files)
        self._receiver = receiver
        self._open: contextlib.ExitStack = contextlib.ExitStack()
        self._write: Callable[[bytes], object] = len
        self._missing = 0

    def feed(self, block: bytes) -> None:
        """Take the next bytes of the stream."""
        view = block
        while view:
            if not self._missing:
                self._next()
            taken, view = view[: self._missing], view[self._missing :]
            self._write(taken)
            self._missing -= len(taken)
            if not self._missing:
                self._open.close()

    def _next(self) -> None:
        """Open the next file that has bytes; files without any are made on the way."""
        for entry in self._left:
            self._write = self._open.enter_context(self._receiver(entry))
            self._missing = entry.size
            if self._missing:
                return
            self._open.close()

    def end(self) -> None:
        """Make the files without bytes that come last."""
        self._next()

    def abort(self, error: BaseException) -> None:
        """Let the open receiver know that there is no more."""
        self._open.__exit__(type(error), error, error.__traceback__)


@contextlib.contextmanager
def _compare(entry: Entry) -> Iterator[Callable[[bytes], object]]:
    seen = hashlib.sha256()
    yield seen.update
    if seen.hexdigest() != entry.sha256:
        raise BundleError(f"{entry.path}: sha256 is {seen.hexdigest()}, {MANIFEST} says {entry.sha256}")


def unpack(folder: Path, dest: Path, expect: str = "", say: Callable[[str], object] = print) -> Manifest:
    """Check the bundle, then write its files below `dest`; return its manifest.

    What is there already and the same stays as it is, so that an interrupted run can be repeated. What is there and is
    not the same is refused before anything is written.

    Raises:
        BundleError: the bundle is wrong, or a file of it is there already with other content, or a link is in the way.
    """
    manifest = verify(folder, expect)
    there = _already(manifest.files, dest)
    needed = sum(entry.size for entry in manifest.files if entry.path not in there)
    free = shutil.disk_usage(_existing(dest)).free
    if needed > free:
        raise BundleError(f"{dest}: {needed} bytes are to be written, {free} are free")
    sink = _Splitter(manifest.files, lambda entry: _skip() if entry.path in there else _writer(dest, entry))
    try:
        for part in manifest.parts:
            for block in _blocks(folder / part.name):
                sink.feed(block)
        sink.end()
    except BaseException as error:
        sink.abort(error)
        raise
    say(f"{len(manifest.files) - len(there)} files written, {len(there)} were there already")
    return manifest


def _already(files: Iterable[Entry], dest: Path) -> set[str]:
    """Return the paths of those that are there, the same."""
    found: set[str] = set()
    problems = []
    for folder in sorted({parent for entry in files for parent in _parents(dest, entry)}):
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            problems.append(f"{folder} is a link or a file; allowed: a folder, or nothing")
    if problems:
        raise BundleError("\n".join(problems))
    for entry in files:
        path = dest / entry.path
        if path.is_symlink() or (path.exists() and not path.is_file()):
            problems.append(f"{path} is there and is no regular file; move it away")
        elif path.exists():
            if path.stat().st_size != entry.size or sha256_of(path) != entry.sha256:
                problems.append(f"{path} is there with other content; move it away, or unpack elsewhere")
            else:
                path.chmod(entry.mode)
                found.add(entry.path)
    if problems:
        raise BundleError("\n".join(problems))
    return found


def _parents(dest: Path, entry: Entry) -> Iterator[Path]:
    segments = entry.path.split("/")[:-1]
    for end in range(1, len(segments) + 1):
        yield dest.joinpath(*segments[:end])


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


@contextlib.contextmanager
def _skip() -> Iterator[Callable[[bytes], object]]:
    yield len


@contextlib.contextmanager
def _writer(dest: Path, entry: Entry) -> Iterator[Callable[[bytes], object]]:
    """Receive one file: it gets its name when it is whole and its checksum is right."""
    path = dest / entry.path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + PARTIAL)
    partial.unlink(missing_ok=True)
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    seen = hashlib.sha256()
    try:
        with os.fdopen(handle, "wb") as stream:

            def write(block: bytes) -> None:
                seen.update(block)
                stream.write(block)

            yield write
            if seen.hexdigest() != entry.sha256:
                raise BundleError(f"{entry.path}: sha256 is {seen.hexdigest()}, {MANIFEST} says {entry.sha256}")
            os.fchmod(stream.fileno(), stat.S_IMODE(entry.mode))
        _name(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _name(partial: Path, path: Path) -> None:
    """Give a whole file its name. A link fails where a rename would replace what came there in between."""
    try:
        os.link(partial, path, follow_symlinks=False)
    except FileExistsError:
        raise BundleError(f"{path} appeared while this ran; move it away") from None
    except OSError:
        # A file system without hard links, as those of USB drives.
        if path.exists():
            raise BundleError(f"{path} appeared while this ran; move it away") from None
        partial.rename(path)


def unpack_tree(source: Path, folder: Path) -> int:
    """Unpack the archives of a tree into a new or empty folder, several at a time; return how many there were.

    Raises:
        BundleError: there are none, or something is in the folder already.
    """
    archives = sorted(source.glob("*.tar.gz"))
    if not archives:
        raise BundleError(f"{source}: no *.tar.gz; allowed: DEST/trees/NAME of an unpacked bundle")
    if folder.exists() and any(folder.iterdir()):
        raise BundleError(f"{folder} is not empty; allowed: a new or empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for _ in pool.map(_unpack_archive, archives, [folder] * len(archives)):
            pass
    return len(archives)


def _unpack_archive(archive: Path, folder: Path) -> None:
    try:
        with tarfile.open(archive, "r:gz") as stream:
            stream.extractall(folder, filter=_accept)  # noqa: S202 - the filter is data's, and more
    except (tarfile.TarError, EOFError) as error:
        # Not as it is: a filter's error cannot travel between processes.
        raise BundleError(f"{archive}: {error}") from None


def _accept(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    """Let nothing outside the folder through, no device and no owner; make the folder that the member goes into."""
    accepted = tarfile.data_filter(member, folder)
    # Archives have no entries for folders, and share some. Before Python 3.13 tarfile looks for a missing folder, then
    # makes it, and fails where the worker of another archive made it in between. mkdir here may come second.
    Path(folder, accepted.name).parent.mkdir(parents=True, exist_ok=True)
    return accepted


def sha256_of(path: Path) -> str:
    """Return the file's sha256 in hexadecimal."""
    seen = hashlib.sha256()
    for block in _blocks(path):
        seen.update(block)
    return seen.hexdigest()


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            yield block


def _is_sha256(text: str) -> bool:
    return len(text) == 64 and set(text) <= _SHA256


def summary(manifest: Manifest) -> str:
    """Return what was found, in one line."""
    size = sum(part.size for part in manifest.parts)
    return (
        f"{len(manifest.files)} files, {size} bytes in {len(manifest.parts)} parts: all as {MANIFEST} says, "
        f"whose sha256 is {manifest.sha256}"
    )


def main(argv: Sequence[str]) -> int:
    """Run the command line; 0 is success, 1 a refusal, 2 a wrong call."""
    parser = argparse.ArgumentParser(description="Check and unpack a bundle of kvstrata.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("verify", "Read and check all of it."),
        ("unpack", "Check it, then write its files below DEST."),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("folder", metavar="DIR", type=Path, help="the bundle")
        if name == "unpack":
            command.add_argument("dest", metavar="DEST", type=Path, help="where its files are to be")
        command.add_argument(
            "--expect", default="", metavar="SHA256", help="of manifest.json, from who made the bundle"
        )
    tree = commands.add_parser("tree", help="Unpack a tree of an unpacked bundle into FOLDER.")
    tree.add_argument("source", metavar="DEST/trees/NAME", type=Path, help="where its archives are")
    tree.add_argument("folder", metavar="FOLDER", type=Path, help="new or empty")
    given = parser.parse_args(argv)
    try:
        if given.command == "tree":
            print(f"{unpack_tree(given.source, given.folder)} archives unpacked into {given.folder}")
        elif given.command == "unpack":
            print(summary(unpack(given.folder, given.dest, given.expect)))
        else:
            print(summary(verify(given.folder, given.expect)))
    except (BundleError, OSError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
