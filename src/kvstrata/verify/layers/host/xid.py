"""Errors of GPUs and NVSwitches in the kernel's log, and which of them end a GPU's service.

A number means what NVIDIA's Xid catalogue says (docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html). Fatal
are those for which it asks at once for a reset of the GPU, a restart of the machine, or hands on its hardware; the
others are errors of one program, which it has restarted, or are to be ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from kvstrata.verify.check import Check, Json, UnableError, UnmetError
from kvstrata.verify.context import NodeContext
from kvstrata.verify.layers.host.survey import Survey

RESET, RESTART, HANDS = "reset the GPU", "restart the machine", "look at its hardware"
FATAL: Final[Mapping[int, tuple[str, str]]] = {
    46: ("the GPU stopped processing", RESET),
    48: ("double-bit ECC error", RESET),
    54: ("no auxiliary power at the GPU", HANDS),
    62: ("its power controller halted", RESET),
    64: ("a bad memory row could not be recorded", RESET),
    74: ("NVLink error", "reset the GPU; if it comes back, look at its links"),
    79: ("the GPU has fallen off the bus", RESTART),
    95: ("memory error that was not contained", RESET),
    109: ("a context switch never ended", RESET),
    110: ("security fault", RESET),
    119: ("its system processor (GSP) does not answer", RESET),
    120: ("its system processor (GSP) failed", RESET),
    136: ("an NVLink could not be trained", RESET),
    140: ("ECC error that was not recovered", RESET),
    143: ("the GPU could not be initialised", RESET),
    151: ("keys could not be rotated", RESTART),
    155: ("an NVLink went down", RESET),
    156: ("a part of it was retired", RESET),
    158: ("fatal time-out", RESET),
}
# NVLink of the fifth generation, and NVSwitches: the line itself says whether it is fatal.
_SAYS_ITSELF = range(144, 151)
_RECOVERY = 154

_XID = re.compile(r"NVRM: Xid \((?:PCI:)?([0-9a-fA-F:.]+)\): (\d+),?\s*(.*)")
_SXID = re.compile(r"SXid \(PCI:([0-9a-fA-F:.]+)\): (\d+),?\s*(.*)")
# journalctl -o short-unix: seconds since 1970; dmesg: seconds since the boot.
_JOURNAL_TIME = re.compile(r"^(\d+\.\d+) ")
_DMESG_TIME = re.compile(r"^\[ *(\d+\.\d+)\]")
_NO_RECOVERY = re.compile(r"to 0x0\b|\bto \S* ?\(None\)")


@dataclass(frozen=True)
class Error:
    """Errors of one number on one device. `kind` is Xid or SXid; `remedy` is empty where it is not fatal."""

    kind: str
    address: str
    number: int
    times: int
    said: str
    meaning: str
    remedy: str

    def __str__(self) -> str:
        """Return it in words."""
        times = "" if self.times == 1 else f" ({self.times} times)"
        text = f"{self.kind} {self.number}{times} on {self.address}: {self.meaning or self.said or 'no more is said'}"
        return f"{text}; {self.remedy}" if self.remedy else text


def errors(text: str, hours: float) -> list[Error]:
    """The errors of the last `hours`, from the survey's part of the kernel's log; UnableError where it has none."""
    source, _, lines = text.partition("\n")
    if source.startswith("unreadable") or not source:
        raise UnableError(f"the kernel's log cannot be read ({source.partition(': ')[2] or 'no answer'})")
    uptime = float(source.split()[1]) if source.startswith("dmesg ") else None
    seen: dict[tuple[str, str, int], list[str]] = {}
    for line in lines.splitlines():
        # journalctl was asked for these hours alone; the ring buffer has all since the boot.
        stamp = _DMESG_TIME.match(line)
        if uptime is not None and stamp and uptime - float(stamp[1]) > hours * 3600:
            continue
        for kind, pattern in (("Xid", _XID), ("SXid", _SXID)):
            if match := pattern.search(line):
                seen.setdefault((kind, match[1], int(match[2])), []).append(match[3].strip())
    return [_error(*key, found) for key, found in seen.items()]


def _error(kind: str, address: str, number: int, said: list[str]) -> Error:
    meaning, remedy = FATAL.get(number, ("", "")) if kind == "Xid" else ("", "")
    first = said[0]
    if kind == "SXid" or number in _SAYS_ITSELF:
        fatal = [text for text in said if re.search(r"(?<![Nn]on-)(?<![Nn]on)\b[Ff]atal\b", text)]
        first, remedy = (fatal or said)[0], RESET if fatal else ""
    if kind == "Xid" and number == _RECOVERY and not _NO_RECOVERY.search(said[-1]):
        # The last one counts: a reset takes the demand back.
        first, remedy = said[-1], "do as it says"
    return Error(kind, address, number, len(said), first[:120], meaning, remedy)


def checks(ctx: NodeContext, survey: Survey) -> Iterator[Check]:
    """One row for the kernel's log of a node."""
    hours = ctx.cluster.verify.limits.xid_hours
    data: dict[str, Json] = {}
    yield ctx.question(
        "host.xid",
        "errors of GPUs in the kernel's log",
        f"no Xid within {hours:g} hours after which NVIDIA asks for a reset, a restart or service",
        ctx.command("journalctl --dmesg --grep='Xid' --no-pager"),
    ).ask(partial(_probe, survey, hours, data), data)


def _probe(survey: Survey, hours: float, data: dict[str, Json]) -> str:
    found = errors(survey.part("kernel-log"), hours)
    data["errors"] = [
        {"device": each.address, "kind": each.kind, "number": each.number, "times": each.times} for each in found
    ]
    if fatal := [str(error) for error in found if error.remedy]:
        raise UnmetError("; ".join(fatal))
    harmless = "; ".join(str(error) for error in found)
    return f"none that needs service{': ' + harmless if harmless else ''}"
