"""Which device it is: serial number, wwid, NVMe controller and the paths that lead to it, from sysfs and udev."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any

from ansible.module_utils.kvstrata_blockhost import Host, names, text, whole_number
from ansible.module_utils.kvstrata_blockuse import Node

PATHS = re.compile(r"nvme\d+c\d+n\d+")
"""Kernel names of single paths to a namespace."""


def identity(host: Host, number: str, nodes: Iterable[Node]) -> dict[str, Any]:
    """Return the fields of kvstrata_blockdev.Device that say which device it is.

    Args:
        host: where.
        number: the device, major:minor.
        nodes: the device and what is made of it.
    """
    folder = host.folder(number)
    kernel = os.path.basename(folder)
    home = os.path.realpath(f"{folder}/device")
    subsystem = os.path.basename(home).startswith("nvme-subsys")
    nvme = re.match(r"nvme\d+n(\d+)", kernel)
    controllers = [home]
    if subsystem:
        controllers = [os.path.realpath(f"{home}/{name}") for name in names(home) if re.fullmatch(r"nvme\d+", name)]
    first = controllers[0] if controllers else home
    wwid = _wwid(folder)
    twins = _twins(host, kernel, wwid)
    return {
        "serial": text(f"{home}/serial") or text(f"{folder}/serial") or _vpd_serial(home),
        "model": text(f"{home}/model"),
        "wwid": wwid,
        "nsid": whole_number(text(f"{folder}/nsid"), int(nvme.group(1)) if nvme else 0),
        "numa_node": whole_number(text(f"{first}/numa_node") or text(f"{first}/device/numa_node"), -1),
        "controller": os.path.basename(home) if nvme and os.path.exists(home) else "",
        "transport": _transport(controllers) or _scsi_transport(home),
        "paths": tuple(os.path.basename(each) for each in controllers) if nvme and os.path.exists(home) else (),
        "siblings": tuple(_siblings(host, home, kernel)) if nvme else (),
        "twins": tuple(twins),
        "multipath": tuple(_multipath(host, kernel, number, nodes)),
    }


def _wwid(folder: str) -> str:
    found: str = text(f"{folder}/wwid") or text(f"{folder}/device/wwid") or text(f"{folder}/uuid")
    return found


def _vpd_serial(home: str) -> str:
    # SCSI's page 80: four bytes of head, then the serial number.
    try:
        with open(f"{home}/vpd_pg80", "rb") as stream:
            return stream.read()[4:].strip(b"\0 ").decode(errors="replace")
    except OSError:
        return ""


def _transport(controllers: Iterable[str]) -> str:
    """Return how the controllers are reached; of several, one that is reached over a network."""
    found = [transport for each in controllers if (transport := text(f"{each}/transport"))]
    return next((transport for transport in found if transport != "pcie"), found[0] if found else "")


def _scsi_transport(home: str) -> str:
    if re.search(r"/session\d+/", home):
        return "iscsi"
    return "fc" if "/rport-" in home else ""


def _twins(host: Host, kernel: str, wwid: str) -> list[str]:
    if not wwid:
        return []
    others = [name for name in names(f"{host.sys}/block") if name != kernel and not PATHS.fullmatch(name)]
    return [name for name in others if _wwid(f"{host.sys}/block/{name}") == wwid]


def _siblings(host: Host, home: str, kernel: str) -> list[str]:
    others = [name for name in names(f"{host.sys}/block") if name != kernel and re.fullmatch(r"nvme\d+n\d+", name)]
    return [name for name in others if os.path.realpath(f"{host.sys}/block/{name}/device") == home]


def _multipath(host: Host, kernel: str, number: str, nodes: Iterable[Node]) -> list[str]:
    found = []
    if PATHS.fullmatch(kernel):
        found.append(f"{kernel} is one path of an NVMe namespace")
    found += [f"{node.kernel} ({node.title}) joins it to others" for node in nodes if " mpath-" in node.title]
    if udev(host, number, "DM_MULTIPATH_DEVICE_PATH") == "1":
        found.append("udev knows it as a path of a multipath device")
    return found


def udev(host: Host, number: str, name: str) -> str:
    """Return a property that udev's data base has of a device, or nothing."""
    match = re.search(rf"^E:{name}=(.*)$", text(f"{host.udev}/b{number}"), re.MULTILINE)
    return match.group(1) if match else ""
