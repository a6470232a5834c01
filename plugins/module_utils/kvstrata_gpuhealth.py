"""What `nvidia-smi -q -x` and the kernel's log say of a GPU's health: pure, and for the nodes (Python 3.9)."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any

FAILING, WARNING = "failing", "warning"
# What a finding is about.
MEMORY, LIFETIME, ECC, FABRIC, RECOVERY = "memory", "lifetime", "ecc", "fabric", "recovery"
# Names as in nverror.h of github.com/NVIDIA/open-gpu-kernel-modules. After these, NVIDIA's Xid catalogue asks for a
# reset, a restart or service; the others are mostly an application's own errors.
FAILING_XIDS: dict[int, str] = {
    48: "double-bit ECC error",
    62: "PMU halted",
    64: "recording a bad memory row failed",
    74: "NVLink error",
    79: "the GPU has fallen off the bus",
    95: "uncontained memory error",
    119: "the GSP does not answer",
    120: "GSP error",
    136: "NVLink training failed",
    140: "unrecoverable ECC error",
    143: "the GPU cannot be initialised",
    154: "the GPU asks for a recovery action",
}
XID = re.compile(r"NVRM: Xid \((?:PCI:)?([0-9a-fA-F:.]+)\): (\d+),?\s*(.*)")
# Errors of NVSwitches: "nvidia-nvswitch0: SXid (PCI:0000:c1:00.0): 12028, Fatal, Link 32 ..."
SXID = re.compile(r"SXid \(PCI:([0-9a-fA-F:.]+)\): (\d+),?\s*(.*)")
# No value: the GPU has no such thing, or this driver does not tell.
_ABSENT = frozenset({"", "N/A", "None", "[N/A]", "Requested functionality has been deprecated"})
_YES = "Yes"
_FAILING_IF_YES = {
    "remapped_rows/remapped_row_failure": "a memory row could not be replaced: the GPU needs service",
    "ecc_errors/aggregate/sram_threshold_exceeded": "more SRAM errors than the GPU may have: it needs service",
    "ecc_errors/unrepairable_memory": "its memory cannot be repaired: it needs service",
}
_WARNING_IF_YES = {
    "remapped_rows/remapped_row_pending": "a memory row waits for its replacement: reset the GPU, or restart",
    "retired_pages/pending_retirement": "a memory page waits for its retirement: reset the GPU, or restart",
    "ecc_errors/channel_repair_pending": "a memory channel waits for its repair: reset the GPU, or restart",
    "ecc_errors/tpc_repair_pending": "a TPC waits for its repair: reset the GPU, or restart",
}
_UNCORRECTABLE = re.compile(r"(dram|sram)_uncorrectable.*|uncorrectable|double_bit")


def parse_smi(text: str) -> dict[str, Any]:
    """Return driver version, GPUs and findings of `nvidia-smi -q -x`.

    A finding has gpu, severity, text, and about: memory (errors and repairs since the driver was loaded), lifetime
    (errors before that), ecc (its mode), fabric, or recovery.

    Raises:
        ValueError: if the text is no such document.
    """
    try:
        root = ET.fromstring(text)  # noqa: S314 - written by the driver's own program
    except ET.ParseError as error:
        raise ValueError(f"nvidia-smi -q -x wrote no XML: {error}") from error
    gpus = root.findall("gpu")
    findings: list[dict[str, str]] = []
    for gpu in gpus:
        findings += _judge(gpu)
    return {
        "driver_version": root.findtext("driver_version", ""),
        "gpus": [_described(gpu) for gpu in gpus],
        "findings": findings,
    }


def parse_log(text: str) -> list[dict[str, str]]:
    """Return a finding for each kind of Xid and SXid in the kernel's log, with how often it is there."""
    seen: dict[tuple[str, str, int], int] = {}
    first: dict[tuple[str, str, int], str] = {}
    for line in text.splitlines():
        for kind, pattern in (("Xid", XID), ("SXid", SXID)):
            match = pattern.search(line)
            # "SXid" holds "Xid", but never after "NVRM: ".
            if match:
                key = (kind, match.group(1), int(match.group(2)))
                seen[key] = seen.get(key, 0) + 1
                first.setdefault(key, match.group(3).strip())
    return [_of_log(*key, count, first[key]) for key, count in seen.items()]


def _of_log(kind: str, address: str, number: int, count: int, said: str) -> dict[str, str]:
    fatal = number in FAILING_XIDS if kind == "Xid" else said.startswith("Fatal")
    meaning = FAILING_XIDS.get(number, said) if kind == "Xid" else said
    times = "once" if count == 1 else f"{count} times"
    text = "{} {} {} since the node started: {}".format(kind, number, times, meaning or "no more is said")
    return {"gpu": address, "severity": FAILING if fatal else WARNING, "text": text}


def _described(gpu: ET.Element) -> dict[str, str]:
    names = ("product_name", "uuid", "ecc_mode/current_ecc", "persistence_mode", "gsp_firmware_version")
    return {"id": gpu.get("id", ""), **{name.rpartition("/")[2]: gpu.findtext(name, "") for name in names}}


def _judge(gpu: ET.Element) -> Iterator[dict[str, str]]:
    name = gpu.get("id", "")

    def finding(severity: str, text: str, about: str = MEMORY) -> dict[str, str]:
        return {"gpu": name, "severity": severity, "text": text, "about": about}

    for path, text in _FAILING_IF_YES.items():
        if gpu.findtext(path) == _YES:
            yield finding(FAILING, text)
    for path, text in _WARNING_IF_YES.items():
        if gpu.findtext(path) == _YES:
            yield finding(WARNING, text)
    now, ever = (_uncorrectable(gpu.find("ecc_errors/" + period)) for period in ("volatile", "aggregate"))
    if now:
        yield finding(FAILING, f"{now} uncorrectable memory errors since the driver was loaded")
    elif ever:
        yield finding(WARNING, f"{ever} uncorrectable memory errors in its life", LIFETIME)
    action = gpu.findtext("gpu_recovery_action", "")
    if action not in _ABSENT:
        yield finding(FAILING, f"it asks for a recovery action: {action}", RECOVERY)
    current, pending = gpu.findtext("ecc_mode/current_ecc", ""), gpu.findtext("ecc_mode/pending_ecc", "")
    if current == "Disabled":
        yield finding(WARNING, "ECC is off: memory errors go unnoticed", ECC)
    if current not in _ABSENT and pending not in _ABSENT and current != pending:
        yield finding(WARNING, f"ECC is {current} and will be {pending} after a reset", ECC)
    state, status = gpu.findtext("fabric/state", ""), gpu.findtext("fabric/status", "")
    if state not in _ABSENT and (state != "Completed" or status not in ("Success", *_ABSENT)):
        text = f"its registration with the NVSwitch fabric is {state} ({status}): CUDA fails with error 802"
        yield finding(FAILING, text, FABRIC)


def _uncorrectable(counters: Any) -> int:
    """Return the sum of the uncorrectable errors, in the form of any generation."""
    if counters is None:
        return 0
    total = 0
    for entry in counters:
        if _UNCORRECTABLE.fullmatch(entry.tag):
            # Volta and older have a block for each kind, with its own total.
            value = entry.findtext("total", "") if len(entry) else (entry.text or "")
            total += int(value) if value.strip().isdigit() else 0
    return total
