"""Look at block devices: what each is, what is on it, who uses it. Reads only, judges nothing.

The contract, for `kvstrata_guard`, which judges, and for modules that write:

    uses = see_uses(host)                     one look at mounts, swap, loops, exports and open files of the machine
    device = look("/dev/disk/by-id/nvme-X", host, uses)

`look` never raises: what could not be seen stands in `Device.errors`, and the guard refuses a device with errors.
`Device` is plain data: `dataclasses.asdict` makes JSON of it, and tests make it by hand.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from dataclasses import dataclass, field, replace

from ansible.module_utils.kvstrata_blockcontent import Content, Signature, see_content
from ansible.module_utils.kvstrata_blockhost import Host, names, text, whole_number
from ansible.module_utils.kvstrata_blockid import identity, udev
from ansible.module_utils.kvstrata_blocktables import Partition
from ansible.module_utils.kvstrata_blockuse import (
    SYSTEM_POINTS,
    Node,
    Uses,
    mounts_of,
    pooled,
    see_uses,
    swaps_of,
    tree,
)

__all__ = ["Array", "Device", "Host", "Uses", "look", "see_uses"]

_DRIVES = re.compile(r"nvme\d+n\d+|sd[a-z]+|vd[a-z]+|xvd[a-z]+|loop\d+")
"""Kernel names of devices that may be drives; loop devices are the lab's."""
SECTOR = 512
"""What sysfs counts sizes in, whatever the device's own blocks are."""


@dataclass(frozen=True)
class Array:
    """The Linux RAID that is made of a device, where it is assembled and nothing but it holds the device."""

    kernel: str
    path: str
    size: int
    content: Content
    members: tuple[str, ...]
    """Kernel names."""


@dataclass(frozen=True)
class Device:
    """One device as it was named, and all that was seen of it."""

    path: str
    kind: str
    """`missing`, `block` or `other`."""
    kernel: str = ""
    """As nvme0n1; in a container that of the machine, as loop3."""
    number: str = ""
    """major:minor."""
    whole: bool = False
    """Not a partition."""
    drive: bool = False
    """A drive by its kernel name, and made of nothing else."""
    read_only: bool = False
    size: int = 0
    """Bytes."""
    lba_bytes: int = 0
    """Bytes of a logical block."""
    serial: str = ""
    """Nothing where the device has none that sysfs shows (loop devices)."""
    model: str = ""
    wwid: str = ""
    """The namespace's own identity: eui., nguid, uuid. or what the kernel makes of serial and model."""
    nsid: int = 0
    """NVMe namespace; 0 where it is none."""
    numa_node: int = -1
    controller: str = ""
    """NVMe controller, as nvme0, or subsystem, as nvme-subsys0, where the kernel has multipath."""
    transport: str = ""
    """As pcie; of SCSI disks iscsi or fc; nothing where it is not known."""
    paths: tuple[str, ...] = ()
    """NVMe controllers that lead to it."""
    siblings: tuple[str, ...] = ()
    """Kernel names of the other namespaces of the same controller: `nvme format` can reach those too."""
    twins: tuple[str, ...] = ()
    """Kernel names of other devices with the same wwid."""
    multipath: tuple[str, ...] = ()
    """Why it looks like one path of several, in words."""
    nodes: tuple[Node, ...] = ()
    """The device itself, then everything made of it."""
    mounts: tuple[tuple[str, str], ...] = ()
    """(kernel name of what is mounted, mount point), in whatever mount namespace."""
    swaps: tuple[tuple[str, str], ...] = ()
    """(kernel name of what is swap space, its path in /proc/swaps)."""
    system: tuple[str, ...] = ()
    """Of the mounts and swaps those which are the system's own."""
    users: tuple[str, ...] = ()
    """Who else has it open for writing or exports it, in words."""
    busy: bool = False
    """Whether the kernel refuses an exclusive open; not tried where mounts, swaps, users or holders say it already."""
    content: Content = field(default_factory=Content)
    array: Array | None = None
    token: str = ""
    """What allows to wipe it in exactly this state; nothing where the bytes were not read."""
    errors: tuple[str, ...] = ()
    """What could not be seen."""

    @property
    def partitions(self) -> tuple[str, ...]:
        """Partitions that the kernel has."""
        return tuple(node.kernel for node in self.nodes if node.kind == "partition")

    @property
    def holders(self) -> tuple[str, ...]:
        """What holds the device or a partition of it, in words."""
        held = [node for node in self.nodes if node.kind in ("holder", "loop")]
        return tuple(f"{node.kernel} ({node.title})" if node.title else node.kernel for node in held)


def look(path: str, host: Host, uses: Uses | None = None) -> Device:
    """Look at one device.

    Args:
        path: as the inventory names it.
        host: where.
        uses: what `see_uses` saw; for several devices, look once. Without it, it is looked now.
    """
    kind, number = host.kind(path), host.number(path)
    if kind != "block" or not number:
        return Device(path, kind)
    uses = see_uses(host) if uses is None else uses
    folder = host.folder(number)
    kernel = os.path.basename(folder)
    nodes = tuple(tree(host, number, uses))
    mounts = mounts_of(host, nodes, uses)
    swaps = swaps_of(host, nodes, uses)
    system = [f"{mount.point} is on {node.kernel}" for node, mount in mounts if _is_system(mount.point, mount.initial)]
    system += [f"swap space {swap} is on {node.kernel}" for node, swap in swaps if node.below]
    users = _users(nodes, uses)
    points = {(node.kernel, mount.point) for node, mount in mounts}
    if pooled(nodes, uses) and not any(mount.fstype == "btrfs" for _, mount in mounts):
        points.add((kernel, "(a btrfs file system of several devices)"))
    errors: list[str] = []
    used = bool(points or swaps or users)
    held = any(node.kind in ("holder", "loop") for node in nodes)
    # What is seen to be used is not claimed as well, not even for a moment.
    busy = not used and not held and _busy(host, path, errors)
    sample = not used and not held and not busy
    content = see_content(host, path, _kernel_partitions(folder), sample=sample)
    if udev(host, number, "ID_FS_TYPE") == "mpath_member":
        content = replace(content, signatures=(*content.signatures, Signature("mpath_member", -1)))
    size = whole_number(text(f"{folder}/size"), 0) * SECTOR
    if content.size != size and not content.errors:
        # Then it is another device that sysfs tells about.
        errors.append(f"sysfs says {size} bytes, the device itself {content.size}")
    device = Device(
        path=path,
        kind=kind,
        kernel=kernel,
        number=number,
        whole=not os.path.exists(f"{folder}/partition"),
        drive=bool(_DRIVES.fullmatch(kernel)) and not names(f"{folder}/slaves"),
        read_only=text(f"{folder}/ro") == "1",
        size=size,
        lba_bytes=whole_number(text(f"{folder}/queue/logical_block_size"), 0),
        nodes=nodes,
        mounts=tuple(sorted(points)),
        swaps=tuple((node.kernel, swap) for node, swap in swaps),
        system=tuple(system),
        users=tuple(users),
        busy=busy,
        content=content,
        array=_array(host, nodes, sample=not used),
        errors=(*errors, *content.errors),
    )
    device = replace(device, **identity(host, number, nodes))
    return replace(device, token=_token(device)) if sample and not device.errors else device


def _is_system(point: str, initial: bool) -> bool:
    return initial and point in SYSTEM_POINTS


def _users(nodes: tuple[Node, ...], uses: Uses) -> list[str]:
    numbers = {node.number: node.kernel for node in nodes if node.number}
    found = [f"{who} has {numbers[number]} open for writing" for who, number in uses.writers if number in numbers]
    return found + [f"{who} exports {numbers[number]}" for who, number in uses.exports if number in numbers]


def _busy(host: Host, path: str, errors: list[str]) -> bool:
    try:
        os.close(host.open(path, exclusive=True))
    except OSError as error:
        if error.errno == errno.EBUSY:
            return True
        errors.append(f"it cannot be opened: {error.strerror}")
    return False


def _kernel_partitions(folder: str) -> list[Partition]:
    found = []
    for name in names(folder):
        index = whole_number(text(f"{folder}/{name}/partition"), -1)
        if index >= 0:
            start = whole_number(text(f"{folder}/{name}/start"), 0) * SECTOR
            size = whole_number(text(f"{folder}/{name}/size"), 0) * SECTOR
            found.append(Partition(index, start, size, name))
    return found


def _array(host: Host, nodes: tuple[Node, ...], *, sample: bool) -> Array | None:
    holders = nodes[1:]
    if len(holders) != 1 or holders[0].kind != "holder" or not holders[0].kernel.startswith("md"):
        return None
    folder, path = host.folder(holders[0].number), f"/dev/{holders[0].kernel}"
    # Its bytes are read too: an array that was made, but not yet its file system, holds nothing.
    content = see_content(host, path, _kernel_partitions(folder), sample=sample)
    size = whole_number(text(f"{folder}/size"), 0) * SECTOR
    return Array(holders[0].kernel, path, size, content, tuple(names(f"{folder}/slaves")))


def _token(device: Device) -> str:
    """Return 16 hex digits that stand for this device in exactly this state.

    Over its name in the inventory and its identity, so that no other device has it; over its signatures, tables and
    bytes, so that no change leaves it valid.
    """
    content = device.content
    state = {
        "name": os.path.basename(device.path),
        "identity": [device.wwid, device.serial, device.nsid, device.size],
        "signatures": [[each.type, each.offset, each.label, each.uuid, each.partition] for each in content.signatures],
        "tables": [
            [table.kind, table.offset, table.uuid, [[part.start, part.size, part.title] for part in table.partitions]]
            for table in content.tables
        ],
        "bytes": content.digest,
    }
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]
