"""Archives of the kinds that a binary comes in, made by hand, so that they can be made wrong as well."""

from __future__ import annotations

import gzip
import io
import lzma
import stat
import struct
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A file in an archive: a regular one, or a symbolic link."""

    name: str
    content: bytes = b""
    link: str = ""


def tar(*entries: Entry) -> bytes:
    """Return a tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for entry in entries:
            info = tarfile.TarInfo(entry.name)
            info.size = len(entry.content)
            if entry.link:
                info.type, info.linkname = tarfile.SYMTYPE, entry.link
            archive.addfile(info, io.BytesIO(entry.content))
    return buffer.getvalue()


def ar(members: Sequence[tuple[str, bytes]]) -> bytes:
    """Return an ar archive, as ar(5) has it."""
    out = b"!<arch>\n"
    for name, content in members:
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode() + content
        out += b"\n" * (len(content) % 2)
    return out


def deb(*entries: Entry, compress: Callable[[bytes], bytes] = gzip.compress, suffix: str = ".gz") -> bytes:
    """Return a Debian package. The member before the data has an odd length, as they do."""
    data = compress(tar(*entries))
    return ar(
        [("debian-binary", b"2.0\n"), ("control.tar.gz", gzip.compress(b"x") + b"!"), (f"data.tar{suffix}", data)]
    )


def cpio(*entries: Entry) -> bytes:
    """Return a cpio archive of the new ASCII format."""
    out = b""
    for entry in (*entries, Entry("TRAILER!!!")):
        mode = stat.S_IFLNK | 0o777 if entry.link else stat.S_IFREG | 0o755
        content = entry.link.encode() if entry.link else entry.content
        name = entry.name.encode() + b"\0"
        fields = [0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0]
        head = b"070701" + "".join(f"{field:08x}" for field in fields).encode() + name
        out += head + b"\0" * (-len(head) % 4) + content + b"\0" * (-len(content) % 4)
    return out


def rpm(*entries: Entry, compress: Callable[[bytes], bytes] = lzma.compress, signature: bytes = b"12345") -> bytes:
    """Return an RPM package; the size of the signature decides on the padding after it."""

    def header(data: bytes) -> bytes:
        index = struct.pack(">IIII", 1000, 4, 0, 1)
        return b"\x8e\xad\xe8\x01" + bytes(4) + struct.pack(">II", 1, len(data)) + index + data

    lead = b"\xed\xab\xee\xdb".ljust(96, b"\0")
    return lead + header(signature) + bytes(-len(signature) % 8) + header(b"name\0") + compress(cpio(*entries))
