"""What is to be done to a drive, from what the guard says it is. Pure: check mode prints it, otherwise it is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ansible.module_utils.kvstrata_guard import Drive, DriveVerdict
from ansible.module_utils.kvstrata_lba import Choice


@dataclass(frozen=True)
class Step:
    """One thing to do, in the order in which they are listed."""

    kind: str
    """`assemble`, `erase`, `format`, `array` or `filesystem`."""
    device: str
    """As the inventory names it; nothing where it is the array that the step before made."""
    text: str
    """For people, as an order."""
    lba_format: int = -1


def steps(drive: Drive, verdict: DriveVerdict, choices: Mapping[str, Choice]) -> list[Step]:
    """Return what makes a drive what the inventory wants.

    Args:
        drive: its entry.
        verdict: what it is now; one that is refused has no steps.
        choices: for devices whose LBA format was looked at, what is to become of it, by path.
    """
    if verdict.state == "own":
        return _of_own(drive, verdict)
    if verdict.state not in ("blank", "wipe"):
        return []
    found = [
        Step("erase", path, f"erase what is on {path}, which the token of drive {drive.name} allows")
        for path in verdict.wipe
    ]
    for path in drive.devices:
        index = choices[path].index if path in choices else None
        if index is not None:
            found.append(Step("format", path, f"format {path} with {choices[path].why}", index))
    if drive.array:
        members = ", ".join(drive.devices)
        found.append(Step("array", "", f"make the RAID0 /dev/md/{drive.label} of {members}"))
    return [*found, _filesystem(drive, "" if drive.array else drive.devices[0])]


def _of_own(drive: Drive, verdict: DriveVerdict) -> list[Step]:
    if drive.array and not verdict.source:
        return [Step("assemble", "", f"assemble the RAID0 /dev/md/{drive.label}")]
    if not verdict.uuid:
        return [_filesystem(drive, verdict.source)]
    return []


def _filesystem(drive: Drive, device: str) -> Step:
    where = device or f"/dev/md/{drive.label}"
    return Step("filesystem", device, f"make the {drive.fstype} file system {drive.label} on {where}")
