"""The block `kvstrata_drives` of one host, ready to paste, from what kvstrata_drive_discover found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

_GIB = 1 << 30
# Kvrocks can need twice what a store holds for a while, and a drive that is full to the brim is slow.
_STORE_SHARE = 0.48


def store_gib(size_bytes: int) -> int:
    """Return a proposal for `store_gib`: under half of the drive, in two digits."""
    proposal = int(size_bytes / _GIB * _STORE_SHARE)
    if proposal < 1:
        return 1
    step = int(10 ** max(0, len(str(proposal)) - 2))
    return proposal // step * step


def block(found: Sequence[Mapping[str, Any]]) -> str:
    """Return the text: one entry for each drive, those that the guard refuses as comments below their reasons.

    Args:
        found: the `drives` of kvstrata_drive_discover.
    """
    if not found:
        return "# No NVMe drive was found.\nkvstrata_drives: []\n"
    usable = [drive for drive in found if not drive["refusals"]]
    lines = ["kvstrata_drives:" if usable else "kvstrata_drives: []"]
    for drive in found:
        mark = "# " if drive["refusals"] else ""
        lines += [f"  # {line}" for line in _title(drive)]
        lines += [f"  {mark}{line}" for line in _entry(drive)]
    return "\n".join(lines) + "\n"


def _title(drive: Mapping[str, Any]) -> Iterator[str]:
    models = " and ".join(dict.fromkeys(device["model"] or "no model" for device in drive["devices"]))
    kernels = ", ".join(device["kernel"] for device in drive["devices"])
    state = {"own": "has kvstrata's file system", "blank": "blank"}.get(drive["state"], "REFUSED")
    yield f"{models}, {_size(drive) // _GIB} GiB, {kernels} at this moment: {state}"
    for refusal in drive["refusals"]:
        yield f"REFUSED {refusal['reason']}: {refusal['seen']}"


def _size(drive: Mapping[str, Any]) -> int:
    return sum(int(device["size"]) for device in drive["devices"])


def _entry(drive: Mapping[str, Any]) -> list[str]:
    devices = drive["devices"]
    paths, serials = [device["path"] for device in devices], [device["serial"] for device in devices]
    entry: dict[str, Any] = {"name": drive["name"]}
    if drive["array"]:
        entry["devices"] = paths
        if all(serials):
            entry["serials"] = serials
    else:
        entry["device"] = paths[0]
        if serials[0]:
            entry["serial"] = serials[0]
    entry["size_gib"] = min(int(device["size"]) for device in devices) // _GIB
    nodes = {device["numa_node"] for device in devices}
    # The kernel says -1 where the machine has one node, or its firmware does not tell.
    if len(nodes) == 1 and min(nodes) >= 0:
        entry["numa_node"] = nodes.pop()
    entry["store_gib"] = store_gib(_size(drive))
    return yaml.safe_dump([entry], sort_keys=False, width=1000).splitlines()
