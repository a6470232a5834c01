"""Marks by which file systems, volume managers and the like are known, looked for in the bytes themselves.

Beside wipefs and blkid, which differ from release to release in what they know. The names are libblkid's where it has
one. Only marks of at least four bytes are here: shorter ones appear by chance in anybody's data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

Read = Callable[[int, int], bytes]

_SECTORS = (0, 512, 1024, 1536)
_PAGES = (4096, 8192, 16384, 32768, 65536)
_KIB = 1024
_MIB = _KIB * _KIB

MAGICS: tuple[tuple[str, int, bytes], ...] = (
    *(("LVM2_member", offset, b"LABELONE") for offset in _SECTORS),
    ("LVM1_member", 0, b"HM\x01\x00"),
    ("LVM1_member", 0, b"HM\x02\x00"),
    ("crypto_LUKS", 0, b"LUKS\xba\xbe"),
    # The second header of LUKS2, at a place that depends on the size of the first.
    *(("crypto_LUKS", 16384 << shift, b"SKUL\xba\xbe") for shift in range(9)),
    ("linux_raid_member", 0, b"\xfc\x4e\x2b\xa9\x01\x00\x00\x00"),
    ("linux_raid_member", 4096, b"\xfc\x4e\x2b\xa9\x01\x00\x00\x00"),
    *(("swap", page - 10, b"SWAPSPACE2") for page in _PAGES),
    *(("swap", page - 10, b"SWAP-SPACE") for page in _PAGES),
    *(("swsuspend", page - 10, b"S1SUSPEND") for page in _PAGES),
    *(("swsuspend", page - 10, b"S2SUSPEND") for page in _PAGES),
    *(("swsuspend", page - 10, b"ULSUSPEND") for page in _PAGES),
    ("xfs", 0, b"XFSB"),
    ("btrfs", 64 * _KIB + 64, b"_BHRfS_M"),
    ("btrfs", 64 * _MIB + 64, b"_BHRfS_M"),
    ("btrfs", 256 * _KIB * _MIB + 64, b"_BHRfS_M"),
    ("ntfs", 3, b"NTFS    "),
    ("exfat", 3, b"EXFAT   "),
    ("ReFS", 3, b"ReFS\x00"),
    ("BitLocker", 3, b"-FVE-FS-"),
    ("vfat", 82, b"FAT32   "),
    ("vfat", 54, b"FAT16   "),
    ("vfat", 54, b"FAT12   "),
    ("f2fs", 1024, b"\x10\x20\xf5\xf2"),
    ("erofs", 1024, b"\xe2\xe1\xf5\xe0"),
    ("jfs", 32768, b"JFS1"),
    ("reiserfs", 65588, b"ReIsErFs"),
    ("reiserfs", 65588, b"ReIsEr2Fs"),
    ("reiserfs", 65588, b"ReIsEr3Fs"),
    ("gfs2", 65536, b"\x01\x16\x19\x70"),
    *(("ocfs2", page * 2, b"OCFSV2") for page in (512, 1024, 2048, 4096)),
    ("iso9660", 32769, b"CD001"),
    ("squashfs", 0, b"hsqs"),
    ("apfs", 32, b"NXSB"),
    ("bcache", 4096 + 24, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"),
    ("bcachefs", 4096 + 24, b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"),
    ("VMFS_volume_member", _MIB, b"\x0d\xd0\x01\xc0"),
    ("VMFS", 2 * _MIB, b"\x5e\xf1\xab\x2f"),
    ("ceph_bluestore", 0, b"bluestore block device"),
    ("oracleasm", 32, b"ORCLDISK"),
    ("stratis", 512 + 4, b"!Stra0tis\x86\xff\x02^\x41rh"),
    ("vdo", 0, b"dmvdo001"),
    ("DM_integrity", 0, b"integrt\x00"),
    ("DM_verity_hash", 0, b"verity\x00\x00"),
)
FROM_END: tuple[tuple[str, int, bytes], ...] = (
    ("ddf_raid_member", 512, b"\xde\x11\xde\x11"),
    ("isw_raid_member", 1024, b"Intel Raid ISM Cfg Sig. "),
)
_ZFS_LABEL = 256 * _KIB
_UBERBLOCKS = (b"\x0c\xb1\xba\x00\x00\x00\x00\x00", b"\x00\x00\x00\x00\x00\xba\xb1\x0c")


def marks(read: Read, size: int) -> Iterator[tuple[str, int]]:
    """Yield (type, offset) of every mark found in `size` bytes that `read(offset, length)` returns."""
    for name, offset, magic in MAGICS:
        if offset + len(magic) <= size and read(offset, len(magic)) == magic:
            yield name, offset
    for name, before, magic in FROM_END:
        if before <= size and read(size - before, len(magic)) == magic:
            yield name, size - before
    yield from _zfs(read, size)


def _zfs(read: Read, size: int) -> Iterator[tuple[str, int]]:
    """ZFS keeps four labels; the second half of each is a ring of uberblocks."""
    end = size // _ZFS_LABEL * _ZFS_LABEL
    for label in (0, _ZFS_LABEL, end - 2 * _ZFS_LABEL, end - _ZFS_LABEL):
        if label < 0:
            continue
        ring = read(label + _ZFS_LABEL // 2, _ZFS_LABEL // 2)
        for offset in range(0, len(ring) - 7, _KIB):
            if ring[offset : offset + 8] in _UBERBLOCKS:
                yield "zfs_member", label + _ZFS_LABEL // 2 + offset
                break
