"""Who uses a block device: partitions and holders, mounts in any namespace, swap, loops, exports, open files.

A claim that none of these shows is found by `kvstrata_blockdev`, which opens the device with O_EXCL.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ansible.module_utils.kvstrata_blockhost import Host, link, names, text, unescape

SYSTEM_POINTS = ("/", "/boot", "/boot/efi", "/efi", "/usr", "/var")
"""Mount points of the system itself, as the first process sees them."""


@dataclass(frozen=True)
class Node:
    """A device, or what is made of it: a partition, a dm or md device, a loop over it."""

    kernel: str
    number: str
    """major:minor, or nothing where sysfs does not say."""
    kind: str
    """`self`, `partition`, `holder` or `loop`."""
    title: str
    """What a dm or md device is called, for people; with the dm uuid, whose prefix says who made it."""
    below: str
    """Kernel name of what it is made of; nothing for the device itself."""


@dataclass(frozen=True)
class Mount:
    """One line of a mountinfo file, proc(5)."""

    number: str
    point: str
    fstype: str
    source: str
    process: str
    """Number of a process that sees it."""
    initial: bool
    """Whether the first process sees it there."""


@dataclass(frozen=True)
class Uses:
    """All uses of all block devices of a host at one moment, by major:minor."""

    mounts: tuple[Mount, ...]
    swaps: tuple[str, ...]
    """Paths of swap devices and files."""
    loops: tuple[tuple[str, str], ...]
    """(kernel name of the loop device, number of the block device behind it)."""
    exports: tuple[tuple[str, str], ...]
    """(what exports it, number): the kernel's own NVMe and SCSI targets."""
    writers: tuple[tuple[str, str], ...]
    """(process, number) of everyone who has a device open for writing."""
    pools: tuple[frozenset[str], ...]
    """Numbers of the devices of each btrfs file system that is mounted: mountinfo names only one of them."""


def see_uses(host: Host) -> Uses:
    """Look at all uses at once; what is asked of it later is about this moment."""
    return Uses(
        mounts=tuple(_mounts(host)),
        swaps=tuple(unescape(line.split()[0]) for line in text(f"{host.proc}/swaps").splitlines()[1:] if line.split()),
        loops=tuple(_loops(host)),
        exports=tuple(_exports(host)),
        writers=tuple(_writers(host)),
        pools=tuple(_pools(host)),
    )


def tree(host: Host, number: str, uses: Uses) -> list[Node]:
    """Return a device and everything made of it, however far up."""
    found: list[Node] = []
    seen: set[str] = set()

    def add(folder: str, kind: str, below: str) -> None:
        kernel = os.path.basename(folder)
        if kernel in seen:
            return
        seen.add(kernel)
        own = text(f"{folder}/dev") or (number if kind == "self" else "")
        found.append(Node(kernel, own, kind, _title(folder), below))
        for name in names(folder):
            if os.path.exists(f"{folder}/{name}/partition"):
                add(f"{folder}/{name}", "partition", kernel)
        for name in names(f"{folder}/holders"):
            add(os.path.realpath(f"{folder}/holders/{name}"), "holder", kernel)
        for loop, behind in uses.loops:
            if own and behind == own:
                add(os.path.realpath(f"{host.sys}/block/{loop}"), "loop", kernel)

    add(host.folder(number), "self", "")
    return found


def mounts_of(host: Host, nodes: Iterable[Node], uses: Uses) -> list[tuple[Node, Mount]]:
    """Return every mount of a device or of what is made of it, in any namespace."""
    by_number = {node.number: node for node in nodes if node.number}
    found = []
    for mount in uses.mounts:
        for number in _numbers(host, mount, uses):
            if number in by_number:
                found.append((by_number[number], mount))
                break
    return found


def pooled(nodes: Iterable[Node], uses: Uses) -> bool:
    """Tell whether a mounted btrfs file system has one of the devices, even if no mount of it is visible."""
    numbers = {node.number for node in nodes}
    return any(numbers & pool for pool in uses.pools)


def swaps_of(host: Host, nodes: Iterable[Node], uses: Uses) -> list[tuple[Node, str]]:
    """Return every swap space on a device or on what is made of it."""
    found = []
    for path in uses.swaps:
        number = host.number(path)
        for node in nodes:
            # In a container the path may lead nowhere, or to another device: the name counts as well.
            if (number and number == node.number) or os.path.basename(path) == node.kernel:
                found.append((node, path))
    return found


def _numbers(host: Host, mount: Mount, uses: Uses) -> Iterator[str]:
    yield mount.number
    if not mount.number.startswith("0:"):
        return
    # Without a device number of its own (btrfs, bcachefs): its source names one device, or several with ":" between.
    for source in mount.source.split(":"):
        number = host.number(source) if source.startswith("/dev/") else ""
        if number:
            yield number
            for pool in uses.pools:
                if number in pool:
                    yield from sorted(pool)


def _title(folder: str) -> str:
    name, uuid = text(f"{folder}/dm/name"), text(f"{folder}/dm/uuid")
    if name or uuid:
        return f"{name} {uuid}".strip()
    level = text(f"{folder}/md/level")
    return f"RAID {level}" if level else ""


def _mounts(host: Host) -> Iterator[Mount]:
    """Every mount of every mount namespace that has a thread; the first process's namespace first."""
    seen: set[str] = set()
    own = link(f"{host.proc}/self/ns/mnt")
    first = {link(f"{host.proc}/1/ns/mnt"), own} - {""}
    processes = sorted((name for name in names(host.proc) if name.isdigit()), key=int)
    for process in ["self", *processes]:
        folder = f"{host.proc}/{process}"
        # A thread may have left the namespace of its process.
        for task in [folder, *(f"{folder}/task/{name}" for name in names(f"{folder}/task"))]:
            namespace = link(f"{task}/ns/mnt")
            if not namespace or namespace in seen:
                continue
            lines = text(f"{task}/mountinfo").splitlines()
            if not lines:
                continue
            seen.add(namespace)
            for line in lines:
                parsed = _mount(line, process, namespace in first)
                if parsed:
                    yield parsed


def _mount(line: str, process: str, initial: bool) -> Mount | None:
    before, _, after = line.partition(" - ")
    left, right = before.split(), after.split()
    if len(left) < 5 or len(right) < 2:
        return None
    return Mount(left[2], unescape(left[4]), right[0], unescape(right[1]), process, initial)


def _loops(host: Host) -> Iterator[tuple[str, str]]:
    for path in glob.glob(f"{host.sys}/block/loop*/loop/backing_file"):
        backing = text(path)
        number = host.number(backing) if backing.startswith("/dev/") else ""
        if number:
            yield path.split("/")[-3], number


def _exports(host: Host) -> Iterator[tuple[str, str]]:
    # The kernel's own targets open devices without claiming them (LIO at least where it takes them for files).
    config = f"{host.sys}/kernel/config"
    for path in glob.glob(f"{config}/nvmet/subsystems/*/namespaces/*/device_path"):
        number = host.number(text(path))
        if number:
            yield f"the NVMe target {path.split('/')[-4]}", number
    for path in glob.glob(f"{config}/target/core/*/*/udev_path"):
        number = host.number(text(path))
        if number:
            yield f"the SCSI target {'/'.join(path.split('/')[-3:-1])}", number


def _writers(host: Host) -> Iterator[tuple[str, str]]:
    own = str(os.getpid())
    for process in names(host.proc):
        if not process.isdigit() or process == own:
            continue
        folder = f"{host.proc}/{process}"
        for name in names(f"{folder}/fd"):
            path = f"{folder}/fd/{name}"
            # Only what looks like a device is asked for its number: a file on a dead server would never answer.
            if "/dev/" not in link(path):
                continue
            number = host.number(path)
            if number and _for_writing(text(f"{folder}/fdinfo/{name}")):
                yield f"{text(f'{folder}/comm')} (process {process})", number


def _for_writing(fdinfo: str) -> bool:
    match = re.search(r"^flags:\s+([0-7]+)$", fdinfo, re.MULTILINE)
    # open(2): the lowest two bits say how; where they cannot be read, the worst is assumed.
    return not match or int(match.group(1), 8) & 3 != os.O_RDONLY


def _pools(host: Host) -> Iterator[frozenset[str]]:
    for folder in glob.glob(f"{host.sys}/fs/btrfs/*/devices"):
        yield frozenset(text(f"{folder}/{name}/dev") for name in names(folder)) - {""}
