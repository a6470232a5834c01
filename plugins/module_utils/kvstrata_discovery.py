"""Which drives a host has, by their stable names. Looks, and changes nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

from ansible.module_utils.kvstrata_blockdev import Device, Host, look, see_uses
from ansible.module_utils.kvstrata_blockhost import names
from ansible.module_utils.kvstrata_own import Drive

BY_ID = "/dev/disk/by-id"
_PART = re.compile(r"-part\d+$")
_LABEL = re.compile(r"kvs-([a-z][a-z0-9_]{0,7})")


def rank(name: str) -> tuple[int, int, str]:
    """Return the place of a name below by-id among those of one drive; the first is the best.

    The namespace's own identity is best: a name of model and serial number can move to another namespace of the drive
    (systemd issue 31448), except where it ends with the namespace's number. What the kernel spells out in hexadecimal
    says the same as model and serial, for nobody to read.
    """
    if name.startswith("nvme-eui."):
        return 0, len(name), name
    if name.startswith(("nvme-nguid.", "nvme-uuid.")):
        return 1, len(name), name
    if not name.startswith("nvme-nvme."):
        # MODEL_SERIAL_1 before MODEL_SERIAL.
        return 2, 0 if re.search(r"_\d+$", name) else 1, name
    return 3, len(name), name


def candidates(host: Host) -> list[str]:
    """Return a path for each NVMe namespace: its best name below by-id, or its kernel name where it has none there."""
    by_number: dict[str, list[str]] = {}
    for name in names(host.real(BY_ID)):
        number = host.number(f"{BY_ID}/{name}")
        if name.startswith("nvme-") and not _PART.search(name) and number:
            by_number.setdefault(number, []).append(name)
    paths = {number: f"{BY_ID}/{min(found, key=rank)}" for number, found in by_number.items()}
    for kernel in names(f"{host.sys}/block"):
        number = host.number(f"/dev/{kernel}")
        if re.fullmatch(r"nvme\d+n\d+", kernel) and number and number not in paths:
            paths[number] = f"/dev/{kernel}"
    return sorted(paths.values(), key=lambda path: _order(host, path))


def _order(host: Host, path: str) -> list[int]:
    # As the kernel numbers them now, in which people think of them.
    real = os.path.basename(os.path.realpath(host.real(path)))
    return [int(number) for number in re.findall(r"\d+", real)]


def entries(devices: Sequence[Device], mounts: str) -> list[Drive]:
    """Return an entry of the inventory for each device, and one for each array of ours.

    Args:
        devices: what was seen, in the order in which they are to be named.
        mounts: the folder in which drives are mounted.
    """
    found: list[tuple[str, list[Device], str]] = []
    arrays: dict[str, list[Device]] = {}
    for device in devices:
        member = device.content.member
        own = _LABEL.fullmatch(member.name.split(":")[-1]) if member else None
        if member and own:
            if member.uuid not in arrays:
                arrays[member.uuid] = []
                found.append((own.group(1), arrays[member.uuid], _fstype(device)))
            arrays[member.uuid].append(device)
        else:
            label = next((each.label for each in device.content.signatures if each.label), "")
            ours = _LABEL.fullmatch(label)
            found.append((ours.group(1) if ours else "", [device], _fstype(device)))
    taken = {name for name, _, _ in found if name}
    free = (f"d{number}" for number in range(10000) if f"d{number}" not in taken)
    used: set[str] = set()
    drives = []
    for name, members, fstype in found:
        own_name = name if name and name not in used else next(free)
        used.add(own_name)
        ordered = sorted(members, key=lambda device: device.content.member.role if device.content.member else 0)
        drives.append(
            Drive(
                own_name,
                tuple(device.path for device in ordered),
                array=len(ordered) > 1,
                fstype=fstype,
                mount=f"{mounts}/{own_name}",
            )
        )
    return drives


def _fstype(device: Device) -> str:
    content = device.array.content if device.array else device.content
    types: Iterable[str] = (each.type for each in content.signatures)
    return next((each for each in types if each in ("xfs", "ext4")), "xfs")


def discover(host: Host, mounts: str) -> tuple[list[Drive], dict[str, Device]]:
    """Return an entry for each drive of the host, and what was seen of each device by its path."""
    uses = see_uses(host)
    devices = [look(path, host, uses) for path in candidates(host)]
    return entries(devices, mounts), {device.path: device for device in devices}
