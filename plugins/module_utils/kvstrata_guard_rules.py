"""The rules of the guard, each a generator of (reason, what was seen) over what was seen of a device."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from ansible.module_utils.kvstrata_blockdev import Device
from ansible.module_utils.kvstrata_blockid import PATHS
from ansible.module_utils.kvstrata_own import Drive
from ansible.module_utils.kvstrata_reasons import reason_of

GIB = 1 << 30
_BY_ID = re.compile(r"/dev/disk/by-id/[^/]+")
_POINTS_SAID = 5
_NETWORK = ("tcp", "rdma", "fc", "loop", "iscsi")


# --- which device it is ---


def identity(drive: Drive, index: int, device: Device) -> Iterator[tuple[str, str]]:
    """Yield why the device is not the drive that the entry means."""
    if not _BY_ID.fullmatch(device.path):
        yield "kernel_name", f"{device.path} is no name below /dev/disk/by-id/"
    if device.kind == "missing":
        yield "missing", "there is no such device"
        return
    if device.kind != "block":
        yield "not_block", "it is no block device"
        return
    if not device.whole:
        yield "not_whole", f"it is the partition {device.kernel}"
    elif not (device.drive or _is_path(device)):
        yield "not_a_drive", f"it is {device.kernel}"
    if device.errors:
        yield "unreadable", "; ".join(device.errors)
    if device.read_only:
        yield "read_only", "the kernel has it read-only"
    if device.transport in _NETWORK:
        yield "not_local", f"it is reached by {device.transport}"
    for what in device.multipath:
        yield "multipath_leg", what
    if device.twins:
        yield "multipath_leg", f"{', '.join(device.twins)} has the same wwid {device.wwid}"
    if len(device.paths) > 1:
        yield "multipath_leg", f"the controllers {', '.join(device.paths)} lead to it"
    wanted = drive.serials[index] if index < len(drive.serials) else ""
    if wanted and not device.serial:
        yield "no_serial", f"expected is {wanted}, and none can be read"
    elif wanted and wanted != device.serial:
        yield "other_serial", f"its serial number is {device.serial}, expected is {wanted}"
    if device.size < drive.size_gib * GIB:
        yield "smaller", f"it has {device.size / GIB:.1f} GiB, expected are at least {drive.size_gib}"


def _is_path(device: Device) -> bool:
    # Of a path of a multipath namespace it is said what it is; that it is no drive would say less.
    return bool(PATHS.fullmatch(device.kernel))


def clashes(drives: Sequence[Drive], seen: Mapping[str, Device]) -> Iterator[tuple[str, str, str, str]]:
    """Yield (drive, path, reason, what was seen) where two entries of the host are in each other's way."""
    named = [(drive.name, path, seen[path]) for drive in drives for path in drive.devices]
    for index, (name, path, device) in enumerate(named):
        for other_index, (other, _, another) in enumerate(named):
            if index == other_index or device.kind != "block" or another.kind != "block":
                continue
            if device.number == another.number:
                yield name, path, "two_names", f"{device.kernel} is also that of {other}"
            elif device.wwid and device.wwid == another.wwid:
                yield name, path, "two_names", f"{another.kernel} of {other} has the same wwid {device.wwid}"
            elif device.controller and device.controller == another.controller:
                yield name, path, "shared_controller", f"{another.kernel} of {other} is on {device.controller} too"


# --- who uses it ---


def uses(drive: Drive, device: Device, own: bool) -> Iterator[tuple[str, str]]:
    """Yield who else uses the device; our own use of our own drive is none."""
    for what in device.system:
        yield "system_disk", what
    array = device.array.kernel if own and drive.array and device.array else ""
    foreign: dict[str, list[str]] = {}
    for kernel, point in device.mounts:
        ours = own and kernel in (array, device.kernel) and _inside(point, drive.mount)
        if not ours:
            foreign.setdefault(kernel, []).append(point)
    for kernel, points in foreign.items():
        # The disk of a host with containers is mounted in very many places.
        more = f" and {len(points) - _POINTS_SAID} more places" if len(points) > _POINTS_SAID else ""
        what = f"{kernel} is mounted at {', '.join(points[:_POINTS_SAID])}{more}"
        yield ("mounted" if kernel == device.kernel else "child_in_use"), what
    for kernel, path in device.swaps:
        yield ("swap_in_use" if kernel == device.kernel else "child_in_use"), f"{path} is active swap space on {kernel}"
    if device.holders and not array:
        yield "holder", f"it is held by {', '.join(device.holders)}"
    for what in device.users:
        yield "busy", what
    if device.busy:
        yield "busy", "the kernel refuses an exclusive open: something uses it that is not visible here"


def _inside(point: str, folder: str) -> bool:
    # A unit's own namespace may have parts of it as mounts of their own.
    return bool(folder) and (point == folder or point.startswith(f"{folder}/"))


# --- what it holds ---


def content(device: Device, absolute: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield what a device that is not ours holds, each kind once."""
    if device.kind != "block":
        return
    held = device.content
    found: dict[str, list[str]] = {}
    if held.tables:
        # The copy at the end, and what protects the table, are told of only where it is not there itself.
        main = [table for table in held.tables if table.kind in ("gpt", "dos")] or held.tables
        found["partition_table"] = [f"a partition table ({table.kind}, {table.uuid})" for table in main]
    entries = [f"partition {part.index} ({part.title})" for table in held.tables for part in table.partitions]
    if device.partitions or entries:
        found["partition"] = [*device.partitions, *dict.fromkeys(entries)]
    for each in held.signatures:
        if held.tables and not each.partition and each.type in ("gpt", "dos", "PMBR"):
            continue
        where = f" in partition {each.partition}" if each.partition else ""
        names = " ".join(word for word in (each.label and f"'{each.label}'", each.uuid) if word)
        found.setdefault(reason_of(each.type), []).append(f"{each.type}{f' ({names})' if names else ''}{where}")
    if held.member and "md" not in found:
        found["md"] = [f"linux_raid_member ({held.member.name} {held.member.uuid})"]
    if held.data and not found:
        found["unknown_data"] = list(held.data)
    for reason, what in found.items():
        yield reason, f"it holds {', '.join(what)}"
    if not found and not held.sampled and not absolute:
        # Cannot be: what was not read is in use, and that was said. If it ever is, the drive is not taken.
        yield "unknown_data", "its bytes were not read"
