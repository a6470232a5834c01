"""The guard: judges whether drives may be taken. Pure: it asks nothing and touches nothing.

How modules use it:

    host = Host()
    drives = [Drive.read(entry) for entry in params["drives"]]
    seen = survey(drives, host)                      path -> Device; looks, reads only
    verdict = judge(drives, seen, params["wipe_tokens"])
    verdict.refusals                                 empty: every drive may be taken
    verdict.drives["d0"].state                       what it is

Always give `judge` all drives of the host: that two entries are one drive shows only then. Before a drive is written,
look at it once more and judge everything again: `seen.update(survey([drive], host))`.

States, of which a module that writes may touch only two:
    blank    nothing at all is on it: may be formatted
    wipe     it holds data, and the token for exactly this state of it was given: may be wiped and formatted
    own      it carries the file system that kvstrata made for this name, or the array of it: taken as it is, never
             formatted. An array that is whole but not assembled has `source` "" and is to be assembled, then looked at
             again. An array without its file system yet has `uuid` "" and `source` set: it is blank, and is formatted.
    refused  see the refusals

`Verdict.as_dict()` is what the module kvstrata_drive_guard returns: {"drives": {NAME: DriveVerdict}, "refusals":
[Refusal]}, all of plain JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ansible.module_utils.kvstrata_blockdev import Device, Host, look, see_uses
from ansible.module_utils.kvstrata_guard_rules import clashes, content, identity, uses
from ansible.module_utils.kvstrata_own import Drive, is_own
from ansible.module_utils.kvstrata_reasons import REASONS

__all__ = ["Drive", "DriveVerdict", "Host", "Refusal", "Verdict", "is_own", "judge", "survey"]

_DEVICE_FIELDS = ("path", "kernel", "serial", "model", "wwid", "nsid", "size", "lba_bytes", "numa_node", "siblings")


@dataclass(frozen=True)
class Refusal:
    """One reason not to take a device."""

    drive: str
    device: str
    reason: str
    """A key of kvstrata_reasons.REASONS."""
    seen: str
    """What was seen, for people."""
    allowed: str
    """What would be accepted, for people."""
    token: str | None = None
    """For reasons of content where nothing else is wrong: what allows to wipe the device as it is now."""


@dataclass(frozen=True)
class DriveVerdict:
    """What an entry is."""

    name: str
    state: str
    fstype: str = ""
    """Of the file system that is there, if the drive is our own."""
    uuid: str = ""
    source: str = ""
    """The device that carries the file system, or will: the named one, or /dev/mdN; "" where no array is assembled."""
    mount: str = ""
    """Where it belongs."""
    mounted: bool = False
    """Whether it is mounted there."""
    array: str = ""
    """UUID of our array on it, 32 hex digits."""
    wipe: tuple[str, ...] = ()
    """Paths of the devices that hold data and whose tokens were right."""
    tokens: tuple[str, ...] = ()
    """Tokens of all its devices that hold data: what nvme_wipe_tokens would have to have."""
    devices: tuple[dict[str, Any], ...] = ()
    """path, kernel, serial, model, wwid, nsid, size, lba_bytes, numa_node, siblings of each; fewer if it is missing."""


@dataclass(frozen=True)
class Verdict:
    """What all drives of a host are, and every reason not to take one."""

    drives: dict[str, DriveVerdict] = field(default_factory=dict)
    refusals: tuple[Refusal, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            "drives": {name: asdict(drive) for name, drive in self.drives.items()},
            "refusals": [asdict(refusal) for refusal in self.refusals],
        }


def survey(drives: Iterable[Drive], host: Host) -> dict[str, Device]:
    """Look at every device of the drives; by its path."""
    now = see_uses(host)
    return {path: look(path, host, now) for drive in drives for path in drive.devices}


def judge(drives: Sequence[Drive], seen: Mapping[str, Device], tokens: Mapping[str, Any]) -> Verdict:
    """Judge all drives of a host together.

    Args:
        drives: all of them.
        seen: by path, from `survey`.
        tokens: by drive, a token or for several devices a list of them in any order.
    """
    refusals: list[Refusal] = []
    verdicts = {}
    in_each_others_way = list(clashes(drives, seen))
    for drive in drives:
        own = is_own(drive, seen)
        found: list[Refusal] = []
        wipe, needed = [], []
        for index, path in enumerate(drive.devices):
            device = seen[path]
            absolute = [*identity(drive, index, device), *uses(drive, device, own)]
            absolute += [
                (reason, what)
                for name, where, reason, what in in_each_others_way
                if (name, where) == (drive.name, path)
            ]
            held = [] if own else list(content(device, absolute))
            found += [_refusal(drive, path, reason, what) for reason, what in absolute]
            if not held:
                continue
            needed += [device.token] if device.token else []
            given = _given(tokens, drive.name)
            if not absolute and device.token and device.token in given:
                wipe.append(path)
                continue
            stale = "; the token that was given is for another drive or another state of this one" if given else ""
            token = None if absolute else device.token or None
            found += [_refusal(drive, path, reason, what + stale, token) for reason, what in held]
        refusals += found
        state = "refused" if found else "own" if own else "wipe" if wipe else "blank"
        verdicts[drive.name] = _verdict(drive, seen, state, tuple(wipe), tuple(needed))
    return Verdict(verdicts, tuple(refusals))


def _refusal(drive: Drive, path: str, reason: str, seen: str, token: str | None = None) -> Refusal:
    return Refusal(drive.name, path, reason, seen, REASONS[reason].allowed, token)


def _given(tokens: Mapping[str, Any], name: str) -> tuple[str, ...]:
    given = tokens.get(name) or ()
    return (given,) if isinstance(given, str) else tuple(str(token) for token in given)


def _verdict(
    drive: Drive, seen: Mapping[str, Device], state: str, wipe: tuple[str, ...], tokens: tuple[str, ...]
) -> DriveVerdict:
    devices = [seen[path] for path in drive.devices]
    first = devices[0]
    facts = tuple({name: getattr(device, name) for name in _DEVICE_FIELDS} for device in devices)
    own = state == "own"
    content, source = first.content, first.path
    if drive.array:
        content, source = (first.array.content, first.array.path) if own and first.array else (None, "")
    signature = content.signatures[0] if own and content and content.signatures else None
    return DriveVerdict(
        name=drive.name,
        state=state,
        fstype=signature.type if signature else "",
        uuid=signature.uuid if signature else "",
        source=source,
        mount=drive.mount,
        mounted=own and any(point == drive.mount for _, point in first.mounts),
        array=first.content.member.uuid if own and drive.array and first.content.member else "",
        wipe=wipe,
        tokens=tokens,
        devices=facts,
    )
