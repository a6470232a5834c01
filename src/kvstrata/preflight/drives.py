"""The drives of an inventory, before any host is asked; and what the guard on a host refused, as problems."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kvstrata.preflight.problem import Problem

_DRIVE_NAME = re.compile(r"[a-z][a-z0-9_]{0,7}")  # with its prefix an XFS label, at most 12 characters
_BY_ID = re.compile(r"/dev/disk/by-id/[^/\s]+")
_TOKEN = re.compile(r"[0-9a-f]{16}")
# Names that udev makes of an identity the whole world has only once. Of others (virtio-, ata-QEMU...) a hypervisor may
# give the same one to two machines.
_WORLDWIDE = re.compile(r"/dev/disk/by-id/(nvme|wwn)-")
_RAID_LEAST = 2


def devices_of(drive: Mapping[str, Any]) -> list[str]:
    """Return the paths of a drive, whichever way they are written."""
    several = drive.get("devices")
    return [str(path) for path in several] if several else [str(drive["device"])] if drive.get("device") else []


# --- the inventory ---


def judge_drives(where: str, drives: Sequence[Mapping[str, Any]]) -> list[Problem]:
    """Return what is wrong with the drives of one host, as they are written."""
    problems = list(_names(where, drives))
    for drive in drives:
        problems += _devices(where, drive)
    owners: dict[str, list[str]] = defaultdict(list)
    for drive in drives:
        for path in devices_of(drive):
            owners[path].append(str(drive["name"]))
    problems += [
        Problem(where, f"kvstrata_drives[{' and '.join(names)}].device", path, "a device of its own for each drive")
        for path, names in owners.items()
        if len(names) > 1
    ]
    return problems


def judge_shared_devices(drives: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Problem]:
    """Return a problem for each device that two hosts have by a name which only one device in the world can have."""
    owners: dict[str, list[str]] = defaultdict(list)
    for host, entries in drives.items():
        for path in {path for drive in entries for path in devices_of(drive)}:
            owners[path].append(host)
    return [
        Problem(" and ".join(hosts), "kvstrata_drives[].device", path, "a drive on one host alone, as this name says")
        for path, hosts in owners.items()
        if len(hosts) > 1 and _WORLDWIDE.match(path)
    ]


def judge_tokens(tokens: object, drives: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Problem]:
    """Return what is wrong with nvme_wipe_tokens: hosts and drives that are none, and what can be no token.

    Args:
        tokens: the variable.
        drives: of each host of the inventory.
    """
    if not isinstance(tokens, Mapping):
        return [Problem("inventory", "nvme_wipe_tokens", tokens, "{host: {drive: token}}")]
    problems = []
    for host, given in tokens.items():
        if host not in drives:
            known = f"nodes of the group kvstrata: {', '.join(drives)}"
            problems.append(Problem("inventory", f"nvme_wipe_tokens[{host}]", given, known))
        elif not isinstance(given, Mapping):
            problems.append(Problem("inventory", f"nvme_wipe_tokens[{host}]", given, "{drive: token}"))
        else:
            by_name = {str(drive["name"]): drive for drive in drives[host]}
            for name, value in given.items():
                problems += _token(host, str(name), value, by_name)
    return problems


def _token(host: str, name: str, value: object, by_name: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    variable = f"nvme_wipe_tokens[{host}][{name}]"
    if name not in by_name:
        yield Problem("inventory", variable, value, f"drives of {host}: {', '.join(by_name) or 'none'}")
        return
    several = len(devices_of(by_name[name]))
    given = value if isinstance(value, list) else [value]
    wrong = not all(isinstance(token, str) and _TOKEN.fullmatch(token) for token in given)
    if wrong or not given or len(given) > several:
        what = "a token" if several == 1 else f"one to {several} tokens"
        # Unquoted, a token of digits alone would be a number for YAML, without its leading zeros.
        yield Problem("inventory", variable, value, f"{what} of 16 hex digits in quotes, as the refusal printed it")


def _names(where: str, drives: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    seen: set[str] = set()
    for drive in drives:
        name = drive["name"]
        if name in seen:
            yield Problem(where, "kvstrata_drives[].name", name, "a name of its own for each drive of the host")
        seen.add(name)
        if not _DRIVE_NAME.fullmatch(str(name)):  # YAML reads a bare 0 as a number
            allowed = "a lower-case letter, then up to 7 of a-z, 0-9 and _"
            yield Problem(where, "kvstrata_drives[].name", name, allowed)


def _devices(where: str, drive: Mapping[str, Any]) -> Iterator[Problem]:
    variable = f"kvstrata_drives[{drive['name']}]"
    if ("device" in drive) == ("devices" in drive):
        given = {key: drive[key] for key in ("device", "devices") if key in drive}
        yield Problem(where, variable, given, "either device or devices, and one of them")
        return
    for field, pair in (("device", "serial"), ("devices", "serials")):
        if pair in drive and field not in drive:
            yield Problem(where, f"{variable}.{pair}", drive[pair], f"only together with {field}")
    several = drive.get("devices")
    if several is not None and len(several) < _RAID_LEAST:
        yield Problem(where, f"{variable}.devices", several, "two devices or more; for one there is `device`")
    if several is not None and len(drive.get("serials", several)) != len(several):
        yield Problem(where, f"{variable}.serials", drive["serials"], f"one for each of the {len(several)} devices")
    for path in devices_of(drive):
        if not _BY_ID.fullmatch(path):
            allowed = (
                "a name below /dev/disk/by-id/, which stays that drive's: /dev/nvme0n1 may be another one after a "
                "reboot. The playbook nvme_discover prints the names of a host's drives"
            )
            yield Problem(where, f"{variable}.{'device' if several is None else 'devices'}", path, allowed)


# --- the hosts ---


def refused_drives(where: str, drives: Sequence[Mapping[str, Any]], guard: Mapping[str, Any]) -> list[Problem]:
    """Return the guard's refusals on one host; those about what a device holds in one problem, with its token.

    Args:
        where: the host.
        drives: as the inventory has them.
        guard: `refusals` and `drives` of kvstrata_drive_guard.
    """
    problems = []
    held: dict[str, dict[str, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    several = {str(drive["name"]): len(devices_of(drive)) > 1 for drive in drives}
    for refusal in guard["refusals"]:
        if refusal["token"]:
            held[refusal["drive"]][refusal["device"]].append(refusal)
        else:
            allowed = f"{refusal['allowed']} ({refusal['reason']}: {refusal['seen']})"
            problems.append(Problem(where, _variable(refusal["drive"], several), refusal["device"], allowed))
    for name, devices in held.items():
        tokens = guard["drives"][name]["tokens"]
        for device, reasons in devices.items():
            allowed = _held(where, name, reasons, tokens if several.get(name) else tokens[0])
            problems.append(Problem(where, _variable(name, several), device, allowed))
    return problems


def _variable(name: str, several: Mapping[str, bool]) -> str:
    return f"kvstrata_drives[{name}].{'devices' if several.get(name) else 'device'}"


def _held(where: str, name: str, reasons: Sequence[Mapping[str, Any]], tokens: str | list[str]) -> str:
    seen = "; ".join(f"{refusal['reason']}: {refusal['seen']}" for refusal in reasons)
    quoted = f'"{tokens}"' if isinstance(tokens, str) else "[" + ", ".join(f'"{token}"' for token in tokens) + "]"
    return (
        f"{reasons[0]['allowed']} ({seen}). Nothing that holds data is ever formatted. If all of it may be lost, put "
        f"this line into the inventory, which is good for this drive in this state alone: "
        f"nvme_wipe_tokens: {{{where}: {{{name}: {quoted}}}}}"
    )
