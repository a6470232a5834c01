"""Why a drive is refused: every reason of the guard, with what would be allowed instead.

The table in docs/drives.md is made of this one.
"""

from __future__ import annotations

from dataclasses import dataclass

BLANK_OR_OURS = "a blank drive, or one that kvstrata made for this name"


@dataclass(frozen=True)
class Reason:
    """One reason."""

    content: bool
    """Whether it is about what the drive holds: a token overrides that, and nothing else."""
    means: str
    """When it is given, for people."""
    allowed: str
    """What would be accepted."""


def _content(means: str) -> Reason:
    return Reason(True, means, BLANK_OR_OURS)


REASONS: dict[str, Reason] = {
    # Which device it is.
    "missing": Reason(False, "the name leads to no device", "a device that exists on the host; this one does not"),
    "not_block": Reason(False, "the name leads to something that is no block device", "a block device"),
    "kernel_name": Reason(
        False,
        "the name is not below /dev/disk/by-id/, and may be another drive's after a reboot",
        "a name below /dev/disk/by-id/",
    ),
    "not_whole": Reason(False, "it is a partition", "a whole drive"),
    "not_a_drive": Reason(False, "it is made of other devices or of memory (dm, md, zram, ...)", "a drive of its own"),
    "not_local": Reason(
        False, "it is reached over a network: NVMe over fabrics, iSCSI, Fibre Channel", "a drive of this host"
    ),
    "multipath_leg": Reason(
        False,
        "it is one path of several to one namespace: held by dm-multipath, nvmeXcYnZ, a subsystem with several "
        "controllers, or another device has the same wwid",
        "a drive that one path leads to",
    ),
    "two_names": Reason(
        False, "two entries of the inventory lead to one namespace", "a drive of its own for each entry"
    ),
    "shared_controller": Reason(
        False,
        "two entries are namespaces of one controller",
        "a controller of its own for each entry: formatting one namespace can reach the others",
    ),
    "other_serial": Reason(
        False, "its serial number is not the expected one", "the drive with the serial number that the inventory says"
    ),
    "no_serial": Reason(
        False,
        "a serial number is expected, and it has none that can be read",
        "a drive whose serial number can be read",
    ),
    "smaller": Reason(False, "it is smaller than the inventory says", "a drive of at least size_gib"),
    "read_only": Reason(False, "the kernel has it read-only", "a drive that can be written"),
    "unreadable": Reason(
        False,
        "not all of it can be seen: it cannot be opened or read, wipefs or blkid failed, or its sizes differ",
        "a drive that can be looked at in full, by root",
    ),
    # Who uses it.
    "mounted": Reason(
        False, "it is mounted, in whatever mount namespace", "a drive that is not mounted elsewhere than by kvstrata"
    ),
    "swap_in_use": Reason(False, "it is active swap space", "a drive that is no swap space"),
    "child_in_use": Reason(
        False,
        "a partition of it, or what is made of it, is mounted or active swap space",
        "a drive of which nothing is in use",
    ),
    "system_disk": Reason(
        False,
        "/, /boot, /boot/efi, /usr, /var or swap space is on it, through whatever is in between",
        "a drive that the system does not need",
    ),
    "holder": Reason(
        False, "LVM, RAID, encryption, a loop device or the like is made of it", "a drive of which nothing is made"
    ),
    "busy": Reason(
        False,
        "the kernel refuses an exclusive open, a process has it open for writing, or a target (NVMe, LIO) exports it",
        "a drive that nobody else has in use",
    ),
    # What it holds.
    "partition_table": _content("it has a partition table, also one that the kernel did not read or only the backup"),
    "partition": _content("it has partitions, in its table or in the kernel"),
    "filesystem": _content("it, or a partition, carries a file system"),
    "swap_signature": _content("it, or a partition, is formatted as swap space, or holds a hibernated system"),
    "lvm": _content("it, or a partition, is a physical volume of LVM"),
    "md": _content("it, or a partition, is a member of a RAID, also of ours if the array is not whole"),
    "luks": _content("it, or a partition, is encrypted with LUKS"),
    "zfs": _content("it, or a partition, is a member of a ZFS pool"),
    "multipath_member": _content("udev knows it as a member of a multipath device"),
    "other_signature": _content("it, or a partition, carries any other mark that wipefs, blkid or kvstrata knows"),
    "unknown_data": _content("bytes are not zero: in the first or last 8 MiB, or in the blocks looked at in between"),
}

_FILESYSTEMS = (
    *("ext2", "ext3", "ext4", "ext4dev", "jbd", "xfs", "xfs_external_log", "btrfs", "vfat", "exfat", "ntfs", "ReFS"),
    *("f2fs", "erofs", "jfs", "reiserfs", "reiser4", "gfs", "gfs2", "ocfs", "ocfs2", "iso9660", "udf", "squashfs"),
    *("squashfs3", "apfs", "hfs", "hfsplus", "bcachefs", "nilfs2", "minix", "ufs", "romfs", "cramfs", "sysv", "xenix"),
    *("hpfs", "befs", "bfs", "zonefs", "vxfs", "exfs", "VMFS", "befs", "mpool", "nss"),
)
_TABLES = ("gpt", "dos", "PMBR", "mac", "bsd", "sgi", "sun", "solaris-x86", "atari", "minix-pt", "unixware", "ultrix")
_BY_TYPE = {
    **dict.fromkeys(_FILESYSTEMS, "filesystem"),
    **dict.fromkeys(_TABLES, "partition_table"),
    **dict.fromkeys(("swap", "swsuspend", "swap-extended"), "swap_signature"),
    **dict.fromkeys(("LVM1_member", "LVM2_member", "snapshot_cow"), "lvm"),
    **dict.fromkeys(("linux_raid_member", "ddf_raid_member", "isw_raid_member"), "md"),
    "crypto_LUKS": "luks",
    "zfs_member": "zfs",
    "mpath_member": "multipath_member",
}


def reason_of(signature: str) -> str:
    """Return the reason for a signature of the type that libblkid calls so."""
    return _BY_TYPE.get(signature, "other_signature")
