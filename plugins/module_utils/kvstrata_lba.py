"""Which LBA format a namespace should have, from what `nvme id-ns` and `nvme id-ctrl` say in JSON. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WANTED_BYTES = 4096

# NVM Express base specification, Identify Controller: OACS bit 1, Format NVM is supported; FNA bit 0, it formats all
# namespaces whichever is named (nvme-cli then names all of them by itself).
_OACS_FORMAT = 1 << 1
_FNA_ALL = 1 << 0


@dataclass(frozen=True)
class Format:
    """One of the LBA formats that a namespace offers."""

    index: int
    lba_bytes: int
    metadata_bytes: int
    performance: int
    """Relative performance as the drive claims it: 0 best, 1 better, 2 good, 3 degraded."""


@dataclass(frozen=True)
class Choice:
    """What is to be done about the LBA format of one namespace."""

    index: int | None
    """Index of the format to apply, or None where the namespace stays as it is."""
    why: str
    """In words, for the list of actions and for notes."""


class LbaError(Exception):
    """The LBA format may not be changed; the text says why, and what would be accepted."""


def formats(id_ns: Mapping[str, Any]) -> list[Format]:
    """Return the formats that a namespace offers, in the order of their index."""
    offered = enumerate(id_ns["lbafs"])
    return [Format(i, 1 << entry["ds"], entry["ms"], entry["rp"]) for i, entry in offered if entry["ds"]]


def current(id_ns: Mapping[str, Any]) -> int:
    """Return the index of the format in use: bits 3:0 of FLBAS, and above them bits 6:5."""
    flbas = int(id_ns["flbas"])
    return (flbas & 0x0F) | ((flbas & 0x60) >> 1)


def choose(id_ns: Mapping[str, Any], id_ctrl: Mapping[str, Any]) -> Choice:
    """Return the best format with blocks of 4096 bytes and no metadata, or why none is to be applied."""
    offered = {entry.index: entry for entry in formats(id_ns)}
    now = offered.get(current(id_ns))
    suitable = [entry for entry in offered.values() if (entry.lba_bytes, entry.metadata_bytes) == (WANTED_BYTES, 0)]
    if not suitable:
        return Choice(None, f"it offers no format with blocks of {WANTED_BYTES} bytes and no metadata")
    best = min(suitable, key=lambda entry: (entry.performance, entry.index))
    if now in suitable and now.performance == best.performance:
        return Choice(None, f"it has blocks of {WANTED_BYTES} bytes already")
    if not int(id_ctrl.get("oacs", 0)) & _OACS_FORMAT:
        return Choice(None, "its controller has no Format NVM command")
    was = f"{now.lba_bytes} bytes (metadata {now.metadata_bytes}, performance {now.performance})" if now else "unknown"
    return Choice(
        best.index,
        f"LBA format {best.index}: blocks of {WANTED_BYTES} bytes, no metadata, relative performance "
        f"{best.performance}; now {was}",
    )


def namespaces(list_ns: str) -> list[int]:
    """Return the namespace ids in the text of `nvme list-ns`, as `[   0]:0x1`."""
    return [int(number, 16) for number in re.findall(r"\]\s*:\s*0x([0-9a-fA-F]+)", list_ns)]


def check_alone(device: str, nsid: int, found: list[int] | None, id_ctrl: Mapping[str, Any]) -> None:
    """Raise LbaError unless the namespace is the only one of its controller.

    Format NVM may erase every namespace of a controller. Even where it need not, a drive with other people's
    namespaces is none to format.

    Args:
        device: for the message.
        nsid: the namespace that is to be formatted.
        found: all ids of the controller, attached or not; None where the drive did not tell.
        id_ctrl: `nvme id-ctrl` in JSON; its `nn` is the most namespaces that the controller can have.
    """
    if found is None:
        if int(id_ctrl.get("nn", 0)) == 1:
            return
        raise LbaError(f"{device}: its controller does not list its namespaces, so one may be formatted along with it")
    others = sorted(set(found) - {nsid})
    if others:
        all_of_them = int(id_ctrl.get("fna", 0)) & _FNA_ALL
        effect = "formats all of them at once" if all_of_them else "could reach them"
        names = ", ".join(map(str, others))
        raise LbaError(
            f"{device}: its controller has other namespaces (id {names}), and a format {effect}. Allowed: "
            "nvme_lba_format keep, or a controller whose only namespace this is"
        )
