"""udev rules for the drives of one host, each known by what does not change when it is found in another order."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_UNSURE = re.compile(r"[^A-Za-z0-9._:-]")
_EVENT = 'ACTION=="add|change", SUBSYSTEM=="block", ENV{DEVTYPE}=="disk"'


def udev_rules(drives: Mapping[str, Mapping[str, Any]], scheduler: str, readahead_kib: int) -> list[str]:
    """Return one rule for each device, and one for each array.

    Args:
        drives: by name, as kvstrata_drive returns them.
        scheduler: what each device gets; an array has none.
        readahead_kib: what devices and arrays get.
    """
    readahead = f'ATTR{{queue/read_ahead_kb}}="{readahead_kib}"'
    rules = []
    for name, drive in drives.items():
        for device in drive["devices"]:
            match = _match(device)
            if match:
                rules.append(f'{_EVENT}, {match}, ATTR{{queue/scheduler}}="{scheduler}", {readahead}')
        if drive["array"]:
            # Any host may have made it; the name is set by 63-md-raid-arrays.rules.
            rules.append(f'{_EVENT}, ENV{{MD_NAME}}=="*:kvs-{name}", {readahead}')
    return rules


def _match(device: Mapping[str, Any]) -> str:
    # ATTRS looks at the device and above it: of NVMe the wwid is the namespace's own, of SCSI its parent's. udev takes
    # some characters for patterns; any character fits a "?".
    for attribute in ("wwid", "serial"):
        if device[attribute]:
            return f'ATTRS{{{attribute}}}=="{_UNSURE.sub("?", device[attribute])}"'
    return ""


def kernel_names(drives: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the kernel names of all devices and arrays, whose rules udevadm is to apply."""
    names = []
    for drive in drives.values():
        names += [device["kernel"] for device in drive["devices"]]
        if drive["array"] and drive["source"]:
            names.append(drive["source"].removeprefix("/dev/"))
    return names
