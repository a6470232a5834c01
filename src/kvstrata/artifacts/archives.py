"""Take one regular file out of an archive. Nothing else is written anywhere, so no name in it can lead astray."""

from __future__ import annotations

import io
import lzma
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from kvstrata.artifacts.compression import decompressed

# No Kvrocks is nearly as large, whatever an archive says of itself.
LARGEST = 1 << 30


class ArchiveError(RuntimeError):
    """An archive is not what it must be, or does not hold the file that was asked for."""


@dataclass(frozen=True)
class Member:
    """One entry of an archive."""

    name: str
    kind: str
    """"file", or what else it is, in words."""
    size: int
    read: Callable[[], bytes]
    """Return its content; only until the next entry is asked for."""


def take(members: Iterator[Member], path: str) -> bytes:
    """Return the content of the regular file `path`.

    Raises:
        ArchiveError: if there is none, if it is something else, or if it is there twice.
    """
    wanted = normal(path)
    content: bytes | None = None
    alike = []
    for member in members:
        name = normal(member.name)
        if name.rsplit("/", 1)[-1] == wanted.rsplit("/", 1)[-1]:
            alike.append(name)
        if name != wanted:
            continue
        if member.kind != "file":
            raise ArchiveError(f"{path} is {member.kind}; allowed: a regular file")
        if content is not None:
            raise ArchiveError(f"{path} is in it twice")
        if member.size > LARGEST:
            raise ArchiveError(f"{path} has {member.size} bytes; allowed: at most {LARGEST}")
        content = member.read()
        if len(content) != member.size:
            raise ArchiveError(f"{path} ends early: {len(content)} of {member.size} bytes")
    if content is None:
        raise ArchiveError(f"{path} is not in it" + (f"; there is: {', '.join(alike)}" if alike else ""))
    return content


def normal(name: str) -> str:
    """Return a name without what archives put before it. A ".." is left as it is, and so equals no path of a lock."""
    while name.startswith(("./", "/")):
        name = name.removeprefix("./").removeprefix("/")
    return name


def from_tar(stream: IO[bytes], path: str) -> bytes:
    """Return a file out of a tar archive, compressed or not."""
    try:
        with decompressed(stream) as plain, tarfile.open(fileobj=plain, mode="r|") as archive:
            return take(_tar_members(archive), path)
    except (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error, OSError) as error:
        raise ArchiveError(f"no readable tar archive: {error or type(error).__name__}") from error


def from_tarball(file: Path, path: str) -> bytes:
    """Return a file out of a tar archive on disk."""
    with file.open("rb") as stream:
        return from_tar(stream, path)


def _tar_members(archive: tarfile.TarFile) -> Iterator[Member]:
    for entry in archive:

        def read(entry: tarfile.TarInfo = entry) -> bytes:
            return (archive.extractfile(entry) or io.BytesIO()).read()

        yield Member(entry.name, _kind(entry), entry.size, read)


def _kind(entry: tarfile.TarInfo) -> str:
    if entry.isreg():
        return "file"
    if entry.issym():
        return f"a symbolic link to {entry.linkname}"
    if entry.islnk():
        return f"a hard link to {entry.linkname}"
    return "a directory" if entry.isdir() else "a special file"


def kind_of_mode(mode: int) -> str:
    """Return the kind of a member from its file mode."""
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    return "a directory" if stat.S_ISDIR(mode) else "a special file"
