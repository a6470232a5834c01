"""The NUMA map of a machine, read from sysfs alone: nodes, and on which of them its GPUs, NVMe drives and NICs are."""

from __future__ import annotations

import glob
import os
import re
from typing import Any

NVIDIA = "0x10de"
# PCI base classes and subclasses, as pciutils' pci.ids has them.
DISPLAY = ("0x0300", "0x0302")
NVME = "0x0108"
NETWORK = ("0x0200", "0x0207")
# A GPU that is given to virtual machines has no number on the host.
NOT_THE_HOSTS = ("vfio-pci", "pci-stub")
EMPTY: dict[str, Any] = {"container": False, "nodes": {}, "gpus": [], "nvme": [], "nics": []}


def read(path: str) -> str:
    """Return the text of a file of sysfs, or nothing where there is none or the kernel refuses to tell."""
    try:
        with open(path) as stream:
            return stream.read().strip()
    except OSError:
        return ""


def base(path: str) -> str:
    """Return the last part of where a link of sysfs leads, or nothing."""
    return os.path.basename(os.path.realpath(path)) if os.path.exists(path) else ""


def nodes(sys: str) -> dict[str, Any]:
    """Return each NUMA node by its number: cpus as the kernel's list, memory_gib, distance to each node."""
    found = {}
    for folder in glob.glob(f"{sys}/devices/system/node/node[0-9]*"):
        memory = re.search(r"MemTotal:\s+(\d+) kB", read(f"{folder}/meminfo"))
        found[os.path.basename(folder)[len("node") :]] = {
            "cpus": read(f"{folder}/cpulist"),
            # Rounded up: what a kernel keeps for itself changes with it, and the map must not.
            "memory_gib": -(-int(memory.group(1)) >> 20) if memory else 0,
            "distance": [int(word) for word in read(f"{folder}/distance").split()],
        }
    return {name: found[name] for name in sorted(found, key=int)}


def node_of(device: str, known: dict[str, Any]) -> int | None:
    """Return the node of a PCI device; None where the firmware does not say and there is more than one it could be."""
    text = read(f"{device}/numa_node")
    if text in known:
        return int(text)
    with_cpus = [name for name, node in known.items() if node["cpus"]]
    return int(with_cpus[0]) if len(with_cpus) == 1 else None


def ids_of(dev: str) -> dict[str, list[str]]:
    """Return the names below /dev/disk/by-id of each NVMe namespace, by its kernel name."""
    found: dict[str, list[str]] = {}
    for path in sorted(glob.glob(f"{dev}/disk/by-id/nvme-*")):
        found.setdefault(os.path.basename(os.path.realpath(path)), []).append(os.path.basename(path))
    return found


def names(device: str, ids: dict[str, list[str]]) -> list[str]:
    """Return the names by id of all namespaces of an NVMe device.

    Not the kernel's names: those of two drives can swap at a reboot. With native multipath a controller has paths
    (nvme0c1n1), and the drive that is used is nvme0n1.
    """
    found = []
    for path in glob.glob(f"{device}/nvme/nvme[0-9]*/nvme[0-9]*n[0-9]*"):
        found += ids.get(re.sub(r"c\d+n", "n", os.path.basename(path)), [])
    return sorted(found)


def topology(sys: str = "/sys", dev: str = "/dev") -> dict[str, Any]:
    """Return the map of the machine whose sysfs and device folder these are.

    Everything is in the order of PCI addresses, in which nvidia-smi numbers GPUs; nothing has a name that a reboot
    could give to another. `numa_node` is None where it is not known.
    """
    known, ids = nodes(sys), ids_of(dev)
    found: dict[str, Any] = {**EMPTY, "nodes": known, "gpus": [], "nvme": [], "nics": []}
    for device in sorted(glob.glob(f"{sys}/bus/pci/devices/*"), key=address):
        kind = read(f"{device}/class")[: len(NVME)]
        entry = {"pci": os.path.basename(device), "numa_node": node_of(device, known)}
        if kind in DISPLAY and read(f"{device}/vendor") == NVIDIA:
            if base(f"{device}/driver") not in NOT_THE_HOSTS:
                found["gpus"].append(entry)
        elif kind == NVME:
            found["nvme"].append({**entry, "ids": names(device, ids)})
        elif kind in NETWORK:
            interfaces = sorted(os.path.basename(path) for path in glob.glob(f"{device}/net/*"))
            if interfaces:
                found["nics"].append({**entry, "interfaces": interfaces})
    return found


def address(device: str) -> list[int]:
    """Return the parts of a PCI address as numbers: a domain of five digits sorts after all of four."""
    return [int(part, 16) for part in re.findall(r"[0-9a-fA-F]+", os.path.basename(device))]
