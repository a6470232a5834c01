"""Bytes that somebody may have left on a drive, at the places where their formats have them.

Written after the formats' own definitions and not after the guard's list of marks, so that a mistake there shows.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

Writes = list[tuple[int, bytes]]
"""(offset, bytes) to be written."""
KIB, MIB = 1024, 1 << 20


@dataclass(frozen=True)
class Sample:
    """One kind of thing on a drive."""

    name: str
    reason: str
    """The guard's reason for it; nothing where any reason of content will do."""
    make: Callable[[int, random.Random], Writes]
    """From the size of the drive in bytes."""


def _at(offset: int, magic: bytes, *, around: int = 0) -> Callable[[int, random.Random], Writes]:
    """Return a maker of `magic` at `offset` (from the end where negative), with random bytes after it."""

    def make(size: int, rng: random.Random) -> Writes:
        return [(offset if offset >= 0 else size + offset, magic + rng.randbytes(around))]

    return make


def gpt(
    size: int, rng: random.Random, *, block: int = 512, parts: str = "both", partitions: int = 2, damaged: bool = False
) -> Writes:
    """Return a partition table.

    Args:
        size: bytes of the drive.
        rng: where ids come from.
        block: the logical blocks for which it is written.
        parts: `both`, `primary` or `backup`.
        partitions: how many.
        damaged: with wrong checksums.
    """
    last = size // block - 1
    entries = bytearray(128 * 128)
    step = (size // (MIB * (partitions + 2))) * MIB if partitions else 0
    for index in range(partitions):
        start = MIB + index * step
        fields = (start // block, (start + max(step, MIB)) // block - 1, 0)
        kind = bytes.fromhex("a2a0d0ebe5b9334487c068b6b72699c7")
        name = f"data{index}".encode("utf-16-le").ljust(72, b"\0")
        entries[index * 128 : index * 128 + 128] = kind + rng.randbytes(16) + struct.pack("<QQQ", *fields) + name
    disk = rng.randbytes(16)
    writes: Writes = []
    for which, own, other, table in (("primary", 1, last, 2), ("backup", last, 1, last - 16 * KIB // block)):
        if parts not in ("both", which):
            continue
        head = struct.pack("<8sIIIIQQQQ", b"EFI PART", 0x10000, 92, 0, 0, own, other, 2 + 16 * KIB // block, last - 33)
        rest = disk + struct.pack("<QIII", table, 128, 128, zlib.crc32(entries))
        crc = zlib.crc32(head + rest) ^ (0xFFFF if damaged else 0)
        writes += [
            (own * block, head[:16] + struct.pack("<I", crc) + head[20:] + rest),
            (table * block, bytes(entries)),
        ]
    if parts != "backup":
        protective = bytearray(512)
        protective[446:462] = struct.pack("<BBHBBHII", 0, 0, 2, 0xEE, 0xFF, 0xFFFF, 1, min(last, 0xFFFFFFFF))
        protective[510:] = b"\x55\xaa"
        writes.append((0, bytes(protective)))
    return writes


def mbr(size: int, rng: random.Random, *, partitions: int = 1) -> Writes:
    """Return a DOS partition table with primary partitions."""
    sector = bytearray(512)
    sector[440:444] = rng.randbytes(4)
    step = size // 512 // (partitions + 2) if partitions else 0
    for index in range(partitions):
        kind = rng.choice((0x07, 0x0C, 0x82, 0x83, 0x8E, 0xFD))
        entry = struct.pack("<BBHBBHII", 0x80 * (index == 0), 1, 1, kind, 0xFE, 0xFFFF, 2048 + index * step, step)
        sector[446 + 16 * index : 462 + 16 * index] = entry
    sector[510:] = b"\x55\xaa"
    return [(0, bytes(sector))]


def md(version: str, name: str, uuid: bytes, *, level: int = 0, disks: int = 2, role: int = 0) -> Callable[..., Writes]:
    """Return a maker of a RAID member's superblock, linux/raid/md_p.h."""

    def make(size: int, _rng: random.Random) -> Writes:
        if version == "0.90":
            words = struct.pack("<IIIII", 0xA92B4EFC, 0, 90, 0, 0) + uuid[:4] + struct.pack("<II", 1, 1) + uuid[4:]
            return [((size & ~0xFFFF) - 0x10000, words.ljust(4096, b"\0"))]
        sectors = size // 512
        offset = {"1.0": ((sectors - 16) & ~7) * 512, "1.1": 0, "1.2": 4096}[version]
        block = bytearray(512)
        struct.pack_into("<IIII", block, 0, 0xA92B4EFC, 1, 0, 0)
        block[16:32], block[32:64] = uuid, name.encode().ljust(32, b"\0")
        struct.pack_into("<QiIQII", block, 64, 0, level, 0, sectors - 4096, 1024, disks)
        struct.pack_into("<QQQQII", block, 128, 4096, sectors - 4096, offset // 512, 0, role, 0)
        block[168:184] = uuid[::-1]
        struct.pack_into("<QQQII", block, 192, 0, 0, 0, 0, 128)
        roles = b"".join(struct.pack("<H", index if index < disks else 0xFFFF) for index in range(128))
        whole = bytearray(block[:256] + roles)
        total = sum(struct.unpack(f"<{len(whole) // 4}I", whole))
        struct.pack_into("<I", whole, 216, ((total & 0xFFFFFFFF) + (total >> 32)) & 0xFFFFFFFF)
        return [(offset, bytes(whole))]

    return make


def _md(version: str) -> Callable[[int, random.Random], Writes]:
    return lambda size, rng: md(version, "other:data", rng.randbytes(16))(size, rng)


def _zfs(labels: Iterable[int]) -> Callable[[int, random.Random], Writes]:
    def make(size: int, rng: random.Random) -> Writes:
        end = size // (256 * KIB) * 256 * KIB
        starts = (0, 256 * KIB, end - 512 * KIB, end - 256 * KIB)
        ring = range(128 * KIB, 256 * KIB, KIB)
        block = struct.pack("<QQQ", 0x00BAB10C, 5000, rng.randrange(1, 1 << 30))
        return [(starts[label] + place, block) for label in labels for place in ring]

    return make


def _lvm(size: int, rng: random.Random) -> Writes:
    identity = bytes(rng.choice(b"abcdefghijkmnpqrstuvwxyz0123456789") for _ in range(32))
    body = struct.pack("<I", 32) + b"LVM2 001" + identity + struct.pack("<QQQQQ", size, MIB, 0, 0, 0)
    sector = (b"LABELONE" + struct.pack("<QI", 1, 0) + body).ljust(512, b"\0")
    return [(512, sector)]


def _luks2(_size: int, rng: random.Random) -> Writes:
    head = b"LUKS\xba\xbe" + struct.pack(">HQQ", 2, 16384, 1) + b"".ljust(48, b"\0") + b"sha256".ljust(32, b"\0")
    return [
        (0, head + rng.randbytes(64) + b"12345678-1234-1234-1234-123456789abc\0\0\0\0"),
        (16384, b"SKUL\xba\xbe\0\x02"),
    ]


def _swap(size: int, rng: random.Random) -> Writes:
    head = struct.pack("<III", 1, size // 4096 - 1, 0) + rng.randbytes(16)
    return [(1024, head), (4096 - 10, b"SWAPSPACE2")]


def _ext(size: int, rng: random.Random) -> Writes:
    block = bytearray(1024)
    struct.pack_into("<IIIIIII", block, 0, 65536, size // 1024, 0, 100, 100, 1, 0)
    struct.pack_into("<H", block, 56, 0xEF53)
    struct.pack_into("<I", block, 76, 1)
    struct.pack_into("<III", block, 92, 0x4, 0x40, 0)
    block[104:120] = rng.randbytes(16)
    return [(1024, bytes(block))]


def _island(size: int, rng: random.Random) -> Writes:
    return [(rng.randrange(0, size), bytes([rng.randrange(1, 256)]))]


def ends(size: int, rng: random.Random) -> Writes:
    """Return a single byte somewhere in the first or the last 8 MiB, which are read in full."""
    offset = rng.randrange(0, min(size, 8 * MIB))
    return [(rng.choice((offset, size - 1 - offset)), bytes([rng.randrange(1, 256)]))]


def large(size: int, rng: random.Random) -> Writes:
    """Return random bytes without a zero, long enough that the guard must meet them wherever they lie."""
    length = 2 * (size // 2048) + 8 * KIB
    data = bytes(rng.randrange(1, 256) for _ in range(1024)) * (length // 1024 + 1)
    return [(rng.randrange(0, size - len(data)), data)]


SAMPLES = (
    Sample("gpt", "partition_table", lambda size, rng: gpt(size, rng, partitions=rng.randrange(0, 5))),
    Sample("gpt of 4096", "partition_table", lambda size, rng: gpt(size, rng, block=4096)),
    Sample("gpt without backup", "partition_table", lambda size, rng: gpt(size, rng, parts="primary")),
    Sample("gpt, only backup", "partition_table", lambda size, rng: gpt(size, rng, parts="backup")),
    Sample("gpt, damaged", "partition_table", lambda size, rng: gpt(size, rng, damaged=True)),
    Sample("gpt, damaged backup", "partition_table", lambda size, rng: gpt(size, rng, parts="backup", damaged=True)),
    Sample("gpt, truncated", "", lambda size, rng: [(at, data[:60]) for at, data in gpt(size, rng)]),
    Sample("mbr", "partition_table", lambda size, rng: mbr(size, rng, partitions=rng.randrange(1, 5))),
    Sample("mbr without partitions", "", lambda size, rng: mbr(size, rng, partitions=0)),
    Sample("LVM", "lvm", _lvm),
    Sample("LUKS1", "luks", _at(0, b"LUKS\xba\xbe\x00\x01aes", around=200)),
    Sample("LUKS2", "luks", _luks2),
    Sample("LUKS2, second header", "luks", _at(0x40000, b"SKUL\xba\xbe\x00\x02", around=200)),
    *(Sample(f"RAID {version}", "md", _md(version)) for version in ("0.90", "1.0", "1.1", "1.2")),
    Sample("RAID of BIOS (DDF)", "md", _at(-512, b"\xde\x11\xde\x11", around=508)),
    Sample("RAID of BIOS (Intel)", "md", _at(-1024, b"Intel Raid ISM Cfg Sig. 1.3.00", around=400)),
    Sample("ZFS", "zfs", _zfs(range(4))),
    Sample("ZFS, last label", "zfs", _zfs((3,))),
    Sample("ZFS, second label", "zfs", _zfs((1,))),
    Sample("swap", "swap_signature", _swap),
    Sample("hibernated", "swap_signature", _at(4086, b"S1SUSPEND")),
    Sample("ext4", "filesystem", _ext),
    Sample("XFS", "filesystem", _at(0, b"XFSB" + struct.pack(">IQ", 4096, 16384), around=100)),
    Sample("btrfs, second superblock", "", _at(20 * MIB + 64, b"_BHRfS_M", around=2 * MIB)),
    Sample("btrfs", "filesystem", _at(64 * KIB + 64, b"_BHRfS_M", around=100)),
    Sample("NTFS", "filesystem", _at(3, b"NTFS    ", around=400)),
    Sample("exFAT", "filesystem", _at(3, b"EXFAT   ", around=400)),
    Sample("FAT32", "filesystem", _at(82, b"FAT32   ", around=400)),
    Sample("F2FS", "filesystem", _at(1024, struct.pack("<I", 0xF2F52010), around=400)),
    Sample("ISO 9660", "filesystem", _at(32768, b"\x01CD001\x01", around=400)),
    Sample("JFS", "filesystem", _at(32768, b"JFS1", around=100)),
    Sample("GFS2", "filesystem", _at(65536, struct.pack(">I", 0x01161970), around=100)),
    Sample("squashfs", "filesystem", _at(0, b"hsqs", around=92)),
    Sample("VMFS", "", _at(MIB, struct.pack("<I", 0xC001D00D), around=100)),
    Sample("bcache", "other_signature", _at(4120, bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81"), around=200)),
    Sample("BlueStore", "other_signature", _at(0, b"bluestore block device\n", around=60)),
    Sample("Oracle ASM", "other_signature", _at(32, b"ORCLDISKVOL1", around=60)),
    Sample("BitLocker", "other_signature", _at(3, b"-FVE-FS-", around=400)),
    Sample("VDO", "other_signature", _at(0, b"dmvdo001", around=60)),
    Sample("a byte at an end", "unknown_data", ends),
    Sample("data", "unknown_data", large),
)
SMALL_ISLAND = Sample("a byte anywhere", "", _island)
"""Which no sampling is bound to find; what the guard says of it is counted and not judged."""


def within(writes: Iterable[tuple[int, bytes]], size: int) -> Writes:
    """Return the writes without what would lie outside a drive of `size` bytes."""
    return [(offset, data[: size - offset]) for offset, data in writes if 0 <= offset < size]
