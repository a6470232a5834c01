"""The NVMe drives of a machine: files on this side, controllers with stable names on the other."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from kvstrata.lab.vmspec import VmSpec

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Drive:
    """One namespace: QEMU's name of it, its controller's serial number, and the file behind it.

    It has no EUI-64: Linux believes none of QEMU's since 6.0 (NVME_QUIRK_BOGUS_NID).
    """

    node: str
    serial: str
    image: Path
    nsid: int = 1

    @property
    def by_id(self) -> str:
        """The name that udev makes of model and serial number; it leads to the controller's last namespace found."""
        return f"/dev/disk/by-id/nvme-QEMU_NVMe_Ctrl_{self.serial}"


def drives(spec: VmSpec) -> list[Drive]:
    """Return the drives with a controller of their own, which can be plugged in while the machine runs."""
    return [
        Drive(f"d{index}", f"KVS{spec.name.upper()}D{index:02d}", spec.folder / f"nvme{index}.img")
        for index in range(spec.drives)
    ]


def shared(spec: VmSpec) -> list[Drive]:
    """Return the namespaces of a `shared` machine that share a controller, or are shared by two."""
    if not spec.shared:
        return []
    name = spec.name.upper()
    return [
        Drive("pair1", f"KVS{name}PAIR", spec.folder / "pair1.img"),
        Drive("pair2", f"KVS{name}PAIR", spec.folder / "pair2.img", nsid=2),
        Drive("paths", f"KVS{name}PATHS", spec.folder / "paths.img"),
    ]


def block_node(drive: Drive) -> dict[str, Any]:
    """Return the arguments of QMP's blockdev-add: the file itself, without a format, a cache mode for a lab.

    A lab's data need not survive this machine's power, so QEMU never waits for a flush; what the machine wrote is
    in the file all the same for everyone who reads it.
    """
    file: dict[str, Any] = {"driver": "file", "filename": str(drive.image), "discard": "unmap", "cache": _CACHE}
    return {"driver": "raw", "node-name": drive.node, "file": file, "discard": "unmap", "cache": _CACHE}


_CACHE = {"direct": False, "no-flush": True}


def plugs(spec: VmSpec) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield, drive by drive, the arguments of blockdev-add and device_add for a machine that runs.

    Namespaces cannot be added to a running machine before QEMU 10, so each controller brings its only one along.
    """
    for port, drive in enumerate(drives(spec)):
        device: dict[str, Any] = {"driver": "nvme", "id": f"nvme-{drive.node}", "serial": drive.serial}
        yield block_node(drive), {**device, "bus": f"rp{port}", "drive": drive.node, **_sectors(spec)}


def cold_devices(spec: VmSpec) -> Iterator[dict[str, Any]]:
    """Yield the devices of a machine that is to boot with its drives, as a `shared` one must."""
    for _, device in plugs(spec):
        yield device
    if not spec.shared:
        return
    port = len(drives(spec))
    pair1, pair2, paths = shared(spec)
    yield {"driver": "nvme", "id": "nvme-pair", "serial": pair1.serial, "bus": f"rp{port}"}
    yield _namespace(spec, pair1, "nvme-pair")
    yield _namespace(spec, pair2, "nvme-pair")
    yield {"driver": "nvme-subsys", "id": "subsys0", "nqn": f"kvstrata-{spec.name}"}
    for index in (0, 1):
        path = {"driver": "nvme", "id": f"nvme-path{index}", "serial": paths.serial, "bus": f"rp{port + 1 + index}"}
        yield {**path, "subsys": "subsys0"}
    yield {**_namespace(spec, paths, "nvme-path0"), "shared": True}


def _namespace(spec: VmSpec, drive: Drive, controller: str) -> dict[str, Any]:
    return {"driver": "nvme-ns", "bus": controller, "drive": drive.node, "nsid": drive.nsid, **_sectors(spec)}


def _sectors(spec: VmSpec) -> dict[str, int]:
    return {"logical_block_size": spec.lba, "physical_block_size": 4096}


def digest(image: Path) -> str:
    """Return a SHA-256 over the file's bytes and over where it has any.

    Holes count by their place and are not read: writing zeros into one changes the digest although no byte differs.
    """
    sha = hashlib.sha256()
    with image.open("rb") as file:
        for start, end in _extents(file):
            sha.update(f"{start}-{end}:".encode())
            file.seek(start)
            left = end - start
            while left:
                data = file.read(min(left, _CHUNK))
                sha.update(data)
                left -= len(data)
        sha.update(f"{file.seek(0, os.SEEK_END)}".encode())
    return sha.hexdigest()


def _extents(file: BinaryIO) -> Iterator[tuple[int, int]]:
    end = 0
    while True:
        try:
            start = os.lseek(file.fileno(), end, os.SEEK_DATA)
        except OSError:
            # ENXIO: no data beyond.
            return
        end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
        yield start, end


@dataclass(frozen=True)
class Written:
    """What was ever written to a drive since the machine has it: the file now, and QEMU's count of requests."""

    by_id: str
    serial: str
    image: str
    sha256: str
    writes: int
    bytes: int
    discards: int


def written(spec: VmSpec, statistics: Sequence[dict[str, Any]]) -> list[Written]:
    """Combine the drives' files with the answer to QMP's query-blockstats."""
    counts = {entry["node-name"]: entry["stats"] for entry in statistics if "node-name" in entry}
    found = []
    for drive in [*drives(spec), *shared(spec)]:
        count = counts[drive.node]
        requests = (count["wr_operations"], count["wr_bytes"], count["unmap_operations"])
        found.append(Written(drive.by_id, drive.serial, str(drive.image), digest(drive.image), *requests))
    return found
