"""Debian packages: an ar archive (ar(5), deb(5)) whose member data.tar.* holds the files."""

from __future__ import annotations

import io
from pathlib import Path

from kvstrata.artifacts.archives import ArchiveError, from_tar

_MAGIC = b"!<arch>\n"
_HEADER = 60


def from_deb(file: Path, path: str) -> bytes:
    """Return a file out of a Debian package.

    Raises:
        ArchiveError: if it is no such package, is cut, or does not hold the file.
    """
    with file.open("rb") as stream:
        if stream.read(len(_MAGIC)) != _MAGIC:
            raise ArchiveError("no Debian package: it does not begin as an ar archive")
        while header := stream.read(_HEADER):
            name = header[:16].decode(errors="replace").strip().rstrip("/")
            size = header[48:58].strip()
            if len(header) < _HEADER or header[58:] != b"`\n" or not size.isdigit():
                raise ArchiveError("no readable Debian package: a member's header is broken")
            if name.startswith("data.tar"):
                content = stream.read(int(size))
                if len(content) != int(size):
                    raise ArchiveError(f"no readable Debian package: {name} ends early")
                return from_tar(io.BufferedReader(io.BytesIO(content)), path)
            # Members begin at even places.
            stream.seek(int(size) + int(size) % 2, io.SEEK_CUR)
    raise ArchiveError("no Debian package: it has no data.tar")
