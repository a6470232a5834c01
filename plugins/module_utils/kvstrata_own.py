"""An entry of kvstrata_drives, and how a drive that kvstrata made for it is known: by exactly what kvstrata makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.kvstrata_blockdev import Array, Device


@dataclass(frozen=True)
class Drive:
    """An entry of kvstrata_drives, as far as the guard needs it."""

    name: str
    devices: tuple[str, ...]
    """Paths as the inventory names them; several are the members of one RAID0."""
    array: bool = False
    serials: tuple[str, ...] = ()
    """Expected, in the order of the devices; empty: not expected."""
    size_gib: int = 0
    """Least size of each device; 0: any."""
    fstype: str = "xfs"
    mount: str = ""
    """Where it belongs."""

    @property
    def label(self) -> str:
        """Label of its file system, and name of its array: names have at most 8 characters, XFS labels 12."""
        return f"kvs-{self.name}"

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> Drive:
        """Read name, device or devices, serial or serials, size_gib, fstype and mount; other keys are not looked at."""
        devices = entry.get("devices") or [entry["device"]]
        serials = entry.get("serials") or ([entry["serial"]] if entry.get("serial") else [])
        return cls(
            name=str(entry["name"]),
            devices=tuple(str(device) for device in devices),
            array=bool(entry.get("devices")),
            serials=tuple(str(serial) for serial in serials),
            size_gib=int(entry.get("size_gib") or 0),
            fstype=entry.get("fstype") or "xfs",
            mount=entry.get("mount") or "",
        )


def is_own(drive: Drive, seen: Mapping[str, Device]) -> bool:
    """Tell whether the drive carries exactly what kvstrata makes for it: the file system, or the array, or both."""
    devices = [seen[path] for path in drive.devices]
    if any(device.kind != "block" or device.errors for device in devices):
        return False
    return _own_array(drive, devices) if drive.array else _own_filesystem(drive, devices[0])


def _own_filesystem(drive: Drive, device: Device) -> bool:
    content = device.content
    return (
        [(each.type, each.label, each.partition) for each in content.signatures] == [(drive.fstype, drive.label, 0)]
        and content.signatures[0].uuid != ""
        and not content.tables
        and not content.member
        and len(device.nodes) == 1
    )


def _own_array(drive: Drive, devices: Sequence[Device]) -> bool:
    members = [device.content.member for device in devices]
    found = [member for member in members if member]
    whole = (
        len(found) == len(devices)
        and len({member.uuid for member in found}) == 1
        and all(member.name.split(":")[-1] == drive.label for member in found)
        and all((member.level, member.disks) == (0, len(devices)) for member in found)
        and sorted(member.role for member in found) == list(range(len(devices)))
    )
    if not whole or not all(_only_member(device) for device in devices):
        return False
    arrays = [device.array for device in devices]
    if not any(arrays):
        return all(len(device.nodes) == 1 for device in devices)
    array = arrays[0]
    return (
        array is not None
        and {each.kernel if each else "" for each in arrays} == {array.kernel}
        and set(array.members) == {device.kernel for device in devices}
        and not array.content.errors
        and (_carries(drive, array) or _is_empty(array))
    )


def _only_member(device: Device) -> bool:
    signatures = {(each.type, each.partition) for each in device.content.signatures}
    return signatures == {("linux_raid_member", 0)} and not device.content.tables


def _carries(drive: Drive, array: Array) -> bool:
    signatures = [(each.type, each.label, each.partition) for each in array.content.signatures]
    ours = signatures == [(drive.fstype, drive.label, 0)] and array.content.signatures[0].uuid != ""
    return ours and not array.content.tables


def _is_empty(array: Array) -> bool:
    content = array.content
    return content.sampled and not (content.signatures or content.tables or content.member or content.data)
