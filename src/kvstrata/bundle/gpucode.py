"""Device code in compiled libraries: blank what one GPU architecture does not run, so that it packs to nothing.

A library that nvcc made holds fat binaries: containers, each with device code (cubins, or PTX to be compiled later) for
several architectures. A wheel of torch or NCCL has five or more of them, and a GPU runs one. Sizes and offsets stay as
they are, for the code around refers to them; blanked bytes are zeros.

The layout is that of CUDA's fatbinary.h, as cuobjdump reads it. A container has the magic 0xBA55ED50, version and
header size (16 bits each), and how many bytes follow (64 bits). An entry has its kind (1 PTX, 2 cubin), version, header
size (32 bits), payload size (64 bits), and at byte 28 the architecture (90 for sm_90).
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass

_MAGIC = b"\x50\xed\x55\xba\x01\x00\x10\x00"
_HEADER = 16
_PTX, _CUBIN = 1, 2
_SMALLEST_ENTRY = 64
_ARCHITECTURE_AT = 28
_ELF = b"\x7fELF"
SMALLEST_BYTES = 1 << 20
"""Libraries that are smaller are left as they are."""


@dataclass(frozen=True)
class Pruned:
    """What was done to a library."""

    containers: int = 0
    own: int = 0
    """Containers with code for the architecture; of another, its PTX is kept."""
    blanked_bytes: int = 0


def is_library(head: bytes, size: int) -> bool:
    """Return whether a file that begins with `head` may hold device code worth a look."""
    return size >= SMALLEST_BYTES and head.startswith(_ELF)


def prune(data: bytearray | mmap.mmap, architecture: int) -> Pruned:
    """Blank in `data`, in place, all device code that a GPU of `architecture` (90 for Hopper) does not run.

    Kept are its own cubins, and in a container without any the PTX that can become code for it. What is no whole
    container stays untouched.
    """
    containers = own = blanked = 0
    at = data.find(_MAGIC)
    while at != -1:
        (size,) = struct.unpack_from("<Q", data, at + 8)
        end = at + _HEADER + size
        if end > len(data):
            at = data.find(_MAGIC, at + len(_MAGIC))
            continue
        entries = list(_entries(data, at + _HEADER, end))
        has_own = any(kind == _CUBIN and found == architecture for kind, found, _, _ in entries)
        for kind, found, start, length in entries:
            mine = kind == _CUBIN and found == architecture
            could_become = kind == _PTX and found <= architecture and not has_own
            if not mine and not could_become:
                data[start : start + length] = bytes(length)
                blanked += length
        containers += 1
        own += has_own
        at = data.find(_MAGIC, end)
    return Pruned(containers, own, blanked)


def _entries(data: bytearray | mmap.mmap, start: int, end: int) -> list[tuple[int, int, int, int]]:
    """Return kind, architecture, begin and length of each payload; up to what is none."""
    found = []
    while start + _SMALLEST_ENTRY <= end:
        kind, _, head, payload = struct.unpack_from("<HHIQ", data, start)
        if kind not in (_PTX, _CUBIN) or head < _ARCHITECTURE_AT + 4 or start + head + payload > end:
            break
        (architecture,) = struct.unpack_from("<I", data, start + _ARCHITECTURE_AT)
        found.append((kind, architecture, start + head, payload))
        start += head + payload
    return found
