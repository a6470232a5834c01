"""What is on a device: signatures, partition tables, RAID superblocks, and whether its bytes are all zero.

Three witnesses, for each knows what another may not: wipefs, blkid's low-level probe, and the bytes themselves. What
one of them cannot say is an error, and an error is never read as "nothing there".
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ansible.module_utils.kvstrata_blockhost import Host
from ansible.module_utils.kvstrata_blockmagic import marks
from ansible.module_utils.kvstrata_blocktables import Member, Partition, Read, Table, member, tables

END_BYTES = 8 << 20
"""So many bytes at each end of a device are all read."""
SAMPLES = 2048
SAMPLE_BYTES = 4096
"""In between, one block of so many bytes in each of SAMPLES equal parts. Whatever fills two parts is always found."""
_KIB = 1024
_EXT_GROUPS = (1, 3, 5, 7, 9, 25, 27, 49)
_PARTITIONS_LOOKED_AT = 32


@dataclass(frozen=True)
class Signature:
    """Something that calls the device, or a partition of it, its own."""

    type: str
    """As libblkid calls it."""
    offset: int
    """Bytes from the start of the device; -1 where the witness does not say."""
    label: str = ""
    uuid: str = ""
    partition: int = 0
    """Number of the partition that carries it; 0: the device itself."""


@dataclass(frozen=True)
class Content:
    """What is on a device."""

    size: int = 0
    """Bytes, as the open device says."""
    signatures: tuple[Signature, ...] = ()
    tables: tuple[Table, ...] = ()
    member: Member | None = None
    sampled: bool = False
    """Whether bytes were read beside the signatures."""
    data: tuple[str, ...] = ()
    """Where bytes that are not zero were found, in words."""
    digest: str = ""
    """sha256 over both ends and all samples."""
    errors: tuple[str, ...] = ()


def see_content(host: Host, path: str, kernel_partitions: Sequence[Partition], *, sample: bool) -> Content:
    """Look at what is on a device, reading only.

    Args:
        host: where.
        path: the device.
        kernel_partitions: partitions that the kernel has, which may be in no table any more.
        sample: whether to read the bytes as well: not worth its time where the device is in use anyway.
    """
    errors: list[str] = []
    try:
        descriptor = host.open(path)
    except OSError as error:
        return Content(errors=(f"it cannot be opened: {error.strerror}",))
    try:
        size = os.lseek(descriptor, 0, os.SEEK_END)

        def read(offset: int, length: int) -> bytes:
            return os.pread(descriptor, max(0, min(length, size - offset)), offset) if 0 <= offset < size else b""

        if size == 0:
            return Content(errors=("it has no bytes at all",))
        found_tables = tables(read, size)
        entries = [entry for table in found_tables for entry in table.partitions] + list(kernel_partitions)
        partitions = list({(entry.start, entry.size): entry for entry in entries}.values())
        signatures = _signatures(host, path, read, size, partitions, errors)
        data: list[str] = []
        digest = _sample(descriptor, size, data) if sample else ""
        found_member = member(read, size)
        return Content(
            *(size, signatures, tuple(found_tables), found_member, sample, tuple(data), digest, tuple(errors))
        )
    except OSError as error:
        return Content(errors=(*errors, f"it cannot be read: {error.strerror}"))
    finally:
        os.close(descriptor)


def _signatures(
    host: Host, path: str, read: Read, size: int, partitions: Sequence[Partition], errors: list[str]
) -> tuple[Signature, ...]:
    # Several witnesses of one thing are one signature: that of the first which knows its label.
    found: dict[tuple[int, str], Signature] = {}

    def add(signatures: Iterator[Signature]) -> None:
        try:
            for each in signatures:
                found.setdefault((each.partition, each.type), each)
        except (OSError, ValueError) as error:
            errors.append(str(error))

    real = host.real(path)
    add(_wipefs(host, real))
    add(_blkid(host, ["blkid", "--probe", "--output", "export", real], 0, 0))
    add(Signature(name, offset) for name, offset in marks(read, size))
    for index, entry in enumerate(partitions[:_PARTITIONS_LOOKED_AT], 1):
        length = min(entry.size, size - entry.start)
        if length < 512:
            continue
        window = ["--offset", str(entry.start), "--size", str(length)]
        add(_blkid(host, ["blkid", "--probe", *window, "--output", "export", real], index, entry.start))
        part = _window(read, entry.start, length)
        add(Signature(name, entry.start + offset, partition=index) for name, offset in marks(part, length))
    return tuple(sorted(found.values(), key=lambda each: (each.partition, each.offset, each.type)))


def _window(read: Read, start: int, length: int) -> Read:
    def inner(offset: int, wanted: int) -> bytes:
        inside = max(0, min(wanted, length - offset)) if offset >= 0 else 0
        return read(start + offset, inside) if inside else b""

    return inner


def _wipefs(host: Host, path: str) -> Iterator[Signature]:
    status, out = host.run(["wipefs", "--no-act", "--json", path])
    if status != 0:
        raise OSError(f"wipefs --no-act fails: {out.strip()}")
    for entry in json.loads(out)["signatures"] if out.strip() else []:
        label, identity = entry.get("label") or "", entry.get("uuid") or ""
        yield Signature(entry["type"], int(entry["offset"], 0), label, identity)


def _blkid(host: Host, argv: Sequence[str], partition: int, start: int) -> Iterator[Signature]:
    status, out = host.run(argv)
    # blkid(8): 2 nothing was found, 8 several things at once that exclude one another.
    if status == 8:
        yield Signature("ambivalent", start, partition=partition)
    elif status not in (0, 2):
        raise OSError(f"blkid --probe fails: {out.strip()}")
    seen = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
    if "TYPE" in seen:
        yield Signature(seen["TYPE"], start, seen.get("LABEL", ""), seen.get("UUID", ""), partition)
    if "PTTYPE" in seen:
        yield Signature(seen["PTTYPE"], start, "", seen.get("PTUUID", ""), partition)


def sample_offsets(size: int) -> list[int]:
    """Return where, between the two ends, blocks are read: the same places each time, for a size in bytes."""
    first, last = END_BYTES, size - END_BYTES
    if last <= first:
        return []
    part = (last - first) / SAMPLES
    # The golden ratio spreads the places within the parts, so that nothing laid out in equal steps is missed.
    spread = (first + int((index + index * 0.618033988749895 % 1) * part) for index in range(SAMPLES))
    # Where file systems keep copies of what describes them: ext4's groups, XFS's four first allocation groups, btrfs.
    known = [group * blocks for group in _EXT_GROUPS for blocks in (8 * _KIB * _KIB, 32 * _KIB * 4 * _KIB)]
    known += [size // 4 * quarter // SAMPLE_BYTES * SAMPLE_BYTES for quarter in (1, 2, 3)]
    known += [64 * _KIB * _KIB, 256 * _KIB * _KIB * _KIB]
    everywhere = {offset // SAMPLE_BYTES * SAMPLE_BYTES for offset in (*spread, *known)}
    return sorted(offset for offset in everywhere if first <= offset <= last - SAMPLE_BYTES)


def _sample(descriptor: int, size: int, data: list[str]) -> str:
    """Append to `data` where bytes are not zero; return the digest of all that was read."""
    digest = hashlib.sha256()
    # Without it the kernel would read 128 KiB around each sample.
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
    ends = [(0, min(END_BYTES, size), "first"), (max(0, size - END_BYTES), min(END_BYTES, size), "last")]
    zeros = bytes(1 << 20)
    for start, length, word in ends:
        clean = True
        for offset in range(start, start + length, len(zeros)):
            block = _exactly(descriptor, min(len(zeros), start + length - offset), offset)
            digest.update(block)
            clean = clean and block == zeros[: len(block)]
        if not clean:
            data.append(f"bytes that are not zero in the {word} {END_BYTES >> 20} MiB")
    blocks = 0
    for offset in sample_offsets(size):
        block = _exactly(descriptor, SAMPLE_BYTES, offset)
        digest.update(block)
        blocks += block != zeros[:SAMPLE_BYTES]
    if blocks:
        data.append(f"bytes that are not zero in {blocks} of the {SAMPLES} blocks looked at in between")
    return digest.hexdigest()


def _exactly(descriptor: int, length: int, offset: int) -> bytes:
    block = os.pread(descriptor, length, offset)
    if len(block) != length:
        raise OSError(5, f"only {len(block)} of {length} bytes at {offset}")
    return block
