"""Partition tables and RAID superblocks, read from the bytes of a device: also where the kernel looked at none of them.

Layouts: UEFI specification 2.10, chapter 5 (GPT and MBR); linux/raid/md_p.h (RAID superblocks).
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass

Read = Callable[[int, int], bytes]
"""Read(offset, length): bytes of the device, fewer where it ends."""

_MOST_ENTRIES = 512
_NO_UUID = b"\0" * 16
_PROTECTIVE = 0xEE
_MD_MAGIC = 0xA92B4EFC


@dataclass(frozen=True)
class Partition:
    """An entry of a partition table; in bytes."""

    index: int
    start: int
    size: int
    title: str
    """Its type, its unique id and its name, as far as the table has them."""


@dataclass(frozen=True)
class Table:
    """A partition table."""

    kind: str
    """`gpt`, `gpt (backup)`, `dos`, or `PMBR`, which protects a GPT."""
    offset: int
    uuid: str
    partitions: tuple[Partition, ...]


@dataclass(frozen=True)
class Member:
    """What a device says of the Linux RAID that it belongs to."""

    version: str
    offset: int
    uuid: str
    name: str
    """As "host:name", or only the name."""
    level: int
    disks: int
    """Devices of the array; -1 where this version is not read further."""
    role: int
    """Its place in the array from 0; 65534 and more: none."""


def tables(read: Read, size: int) -> list[Table]:
    """Return every partition table of a device, whatever size of block it was written for."""
    found = []
    for block in (512, 4096):
        primary = _gpt(read, size, block, block, "gpt")
        backup = _gpt(read, size, block, size - block, "gpt (backup)")
        found += [table for table in (primary, backup) if table]
    dos = _dos(read)
    if dos:
        found.append(dos)
    return found


def _gpt(read: Read, size: int, block: int, offset: int, kind: str) -> Table | None:
    header = read(offset, 92)
    if len(header) < 92 or header[:8] != b"EFI PART":
        return None
    (first,) = struct.unpack_from("<Q", header, 72)
    count, each = struct.unpack_from("<II", header, 80)
    partitions = []
    # Also of a damaged table only so much is read as a good one has.
    if 128 <= each <= 4096 and first * block < size:
        entries = read(first * block, each * min(count, _MOST_ENTRIES))
        for index in range(len(entries) // each):
            entry = entries[index * each : index * each + 128]
            if entry[:16] == _NO_UUID:
                continue
            start, last = struct.unpack_from("<QQ", entry, 32)
            name = entry[56:128].decode("utf-16-le", errors="replace").rstrip("\0")
            title = f"{uuid.UUID(bytes_le=entry[:16])} {uuid.UUID(bytes_le=entry[16:32])} {name}".strip()
            partitions.append(Partition(index + 1, start * block, max(0, last - start + 1) * block, title))
    return Table(kind, offset, str(uuid.UUID(bytes_le=header[56:72])), tuple(partitions))


def _dos(read: Read) -> Table | None:
    sector = read(0, 512)
    if len(sector) < 512 or sector[510:] != b"\x55\xaa":
        return None
    partitions, protective = [], False
    for index in range(4):
        entry = sector[446 + 16 * index : 462 + 16 * index]
        start, sectors = struct.unpack_from("<II", entry, 8)
        # The boot sector of FAT and NTFS ends with the same two bytes, and has text where the entries would be.
        if entry[0] not in (0, 0x80):
            return None
        # The entry that protects a GPT is no partition.
        if entry[4] == _PROTECTIVE:
            protective = True
        elif entry[4] and sectors:
            partitions.append(Partition(index + 1, start * 512, sectors * 512, f"type {entry[4]:02x}"))
    if not partitions and not protective:
        return None
    return Table("dos" if partitions else "PMBR", 0, sector[440:444][::-1].hex(), tuple(partitions))


def member(read: Read, size: int) -> Member | None:
    """Return the superblock of the Linux RAID that a device belongs to, or nothing."""
    sectors = size // 512
    end = (((sectors - 16) & ~7) * 512) if sectors > 16 else 0
    for version, offset in (("1.1", 0), ("1.2", 4096), ("1.0", end)):
        block = read(offset, 512)
        if len(block) == 512 and struct.unpack_from("<II", block)[:2] == (_MD_MAGIC, 1):
            return _member(block, version, offset, read)
    old = (size & ~0xFFFF) - 0x10000
    block = read(old, 64) if old > 0 else b""
    if len(block) == 64 and _MD_MAGIC in (struct.unpack_from("<I", block)[0], struct.unpack_from(">I", block)[0]):
        return Member("0.90", old, block[20:24].hex() + block[52:64].hex(), "", -1, -1, 65535)
    return None


def _member(block: bytes, version: str, offset: int, read: Read) -> Member:
    identity = block[16:32].hex()
    name = block[32:64].split(b"\0")[0].decode(errors="replace")
    (level,) = struct.unpack_from("<i", block, 72)
    (disks,) = struct.unpack_from("<I", block, 92)
    (number,) = struct.unpack_from("<I", block, 160)
    place = read(offset + 256 + 2 * number, 2) if number < 384 else b""
    role = struct.unpack("<H", place)[0] if len(place) == 2 else 65535
    return Member(version, offset, identity, name, level, disks, role)
