"""RPM packages: a lead, two headers, and a compressed cpio archive (the format of rpm.org, version 3 and 4)."""

from __future__ import annotations

import io
import lzma
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from kvstrata.artifacts.archives import ArchiveError, Member, kind_of_mode, take
from kvstrata.artifacts.compression import decompressed

_LEAD = b"\xed\xab\xee\xdb"
_LEAD_BYTES = 96
_HEADER = b"\x8e\xad\xe8\x01"
_INDEX_BYTES = 16
_CPIO = (b"070701", b"070702")
_CPIO_BYTES = 110
_END = "TRAILER!!!"


def from_rpm(file: Path, path: str) -> bytes:
    """Return a file out of an RPM package.

    Raises:
        ArchiveError: if it is no such package, is cut, or does not hold the file.
    """
    with file.open("rb") as stream:
        if stream.read(_LEAD_BYTES)[: len(_LEAD)] != _LEAD:
            raise ArchiveError("no RPM package: it does not begin as one")
        size = _skip_header(stream)
        # The signature ends at a multiple of 8; the header does not.
        stream.seek(-size % 8, io.SEEK_CUR)
        _skip_header(stream)
        try:
            with decompressed(stream) as payload:
                return take(_cpio_members(payload), path)
        except (EOFError, lzma.LZMAError, zlib.error, OSError) as error:
            raise ArchiveError(f"no readable RPM package: {error or type(error).__name__}") from error


def _skip_header(stream: IO[bytes]) -> int:
    """Pass over a header structure; return the size of its data."""
    intro = stream.read(16)
    if len(intro) < 16 or intro[:4] != _HEADER:
        raise ArchiveError("no readable RPM package: a header is missing")
    entries, size = struct.unpack(">II", intro[8:])
    stream.seek(entries * _INDEX_BYTES + size, io.SEEK_CUR)
    return int(size)


def _cpio_members(stream: IO[bytes]) -> Iterator[Member]:
    while True:
        header = _exactly(stream, _CPIO_BYTES)
        if header[:6] not in _CPIO:
            raise ArchiveError("no readable RPM package: its payload is no cpio archive of the new format")
        fields = [int(header[6 + 8 * n : 14 + 8 * n], 16) for n in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = _exactly(stream, name_size)[:-1].decode(errors="replace")
        _exactly(stream, -(_CPIO_BYTES + name_size) % 4)
        if name == _END:
            return
        unread = [size]

        def read(size: int = size, unread: list[int] = unread) -> bytes:
            unread[0] = 0
            return _exactly(stream, size)

        yield Member(name, kind_of_mode(mode), size, read)
        _exactly(stream, unread[0])
        _exactly(stream, -size % 4)


def _exactly(stream: IO[bytes], size: int) -> bytes:
    content = stream.read(size)
    if len(content) != size:
        raise ArchiveError("no readable RPM package: its payload ends early")
    return content
