"""Read compressed streams, known by how they begin."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import importlib
import io
import lzma
import shutil
import subprocess
from collections.abc import Iterator
from typing import IO, Any, cast

_ZSTD = b"\x28\xb5\x2f\xfd"
_LONGEST = 6


class UnsupportedError(RuntimeError):
    """Something is packed in a way that cannot be read here; the message says what would help."""


@contextlib.contextmanager
def decompressed(stream: IO[bytes]) -> Iterator[IO[bytes]]:
    """Yield what is in a stream that can be peeked into: gzip, xz, bzip2, zstd, or as it is."""
    start = cast("io.BufferedReader", stream).peek(_LONGEST)[:_LONGEST]
    if start.startswith(b"\x1f\x8b"):
        with gzip.GzipFile(fileobj=stream) as gz:
            yield cast("IO[bytes]", gz)
    elif start.startswith(b"\xfd7zXZ\x00") or start.startswith(b"\x5d\x00\x00"):
        with lzma.LZMAFile(stream) as xz:
            yield cast("IO[bytes]", xz)
    elif start.startswith(b"BZh"):
        with bz2.BZ2File(stream) as bz:
            yield cast("IO[bytes]", bz)
    elif start.startswith(_ZSTD):
        with _zstd(stream) as unpacked:
            yield unpacked
    else:
        yield stream


@contextlib.contextmanager
def _zstd(stream: IO[bytes]) -> Iterator[IO[bytes]]:
    """Decompress with Python, which can from 3.14 on, else with the program `zstd`."""
    module: Any = None
    with contextlib.suppress(ImportError):
        module = importlib.import_module("compression.zstd")
    if module is not None:
        with module.ZstdFile(stream) as plain:
            yield plain
        return
    program = shutil.which("zstd")
    if program is None:
        raise UnsupportedError("this is compressed with zstd: install the program zstd, or use Python 3.14")
    packed = stream.read()
    done = subprocess.run([program, "--decompress", "--stdout"], input=packed, capture_output=True, check=False)
    if done.returncode:
        raise UnsupportedError(f"zstd could not decompress this: {done.stderr.decode(errors='replace').strip()}")
    yield io.BytesIO(done.stdout)
