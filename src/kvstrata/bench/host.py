"""The machine below a benchmark: described for the report, and refused where it cannot serve."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from kvstrata.bench import procfs
from kvstrata.bench.errors import BenchError
from kvstrata.bench.quiet import QUIET_SHARE
from kvstrata.bench.sizes import GIB, show_size
from kvstrata.paths import cache_dir

# A store without blob files and with the WAL writes 4 to 5 times the values before it is at rest (docs/kvrocks.md).
_SPACE_FACTOR = 5
_SPARE_BYTES = 2 * GIB


def default_folder() -> Path:
    """Return the first usual place for temporary files that lies on a drive.

    Raises:
        BenchError: all of them are in memory.
    """
    cache_dir().mkdir(parents=True, exist_ok=True)
    for place in (Path(tempfile.gettempdir()), Path("/var/tmp"), cache_dir()):  # noqa: S108
        if place.is_dir() and not procfs.mount_of(place).in_memory:
            return place
    raise BenchError("every folder for temporary files is in memory; name one on the drive with --dir")


def check_folder(folder: Path, value_bytes: int, allow_memory: bool) -> procfs.Mount:
    """Return the mount of a folder that can hold the benchmark.

    Raises:
        BenchError: it doesn't exist, lies in memory without `allow_memory`, or has too little room.
    """
    if not folder.is_dir():
        raise BenchError(f"--dir {folder}: no such folder")
    mount = procfs.mount_of(folder)
    if mount.in_memory and not allow_memory:
        raise BenchError(
            f"--dir {folder} lies on {mount.fstype}, in memory: this measures a drive. "
            "Name a folder on one, or say --allow-tmpfs"
        )
    needed = value_bytes * _SPACE_FACTOR + (0 if mount.in_memory else _SPARE_BYTES)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise BenchError(
            f"--dir {folder} has {free / GIB:.1f} GiB free; {needed / GIB:.1f} GiB are needed for --bytes "
            f"{show_size(value_bytes)}, {_SPACE_FACTOR} times as much and {show_size(_SPARE_BYTES)} to spare"
        )
    return mount


def foreign_note(foreign_cores: Sequence[float], cores: int) -> str | None:
    """Return what to say when others took more than QUIET_SHARE of the CPU during half of the measurements."""
    if not foreign_cores or median(foreign_cores) <= QUIET_SHARE * cores:
        return None
    return (
        f"THE MACHINE WAS SHARED: others used {median(foreign_cores):.1f} of {cores} cores in the median measurement, "
        f"{max(foreign_cores):.1f} in the worst"
    )


def describe(mount: procfs.Mount) -> dict[str, Any]:
    """Return what identifies the machine and drive of a run."""
    return {
        "cpu": _cpu_model(Path("/proc/cpuinfo").read_text()),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "filesystem": mount.fstype,
        "device": mount.source,
        "device_model": _device_model(mount.device),
        "device_counters": procfs.disk(mount.device) is not None,
        "load_before": os.getloadavg()[0],
    }


def warnings(host: dict[str, Any]) -> Sequence[str]:
    """Return what about the machine makes the numbers worth less."""
    found = []
    if host["load_before"] > 0.5 * host["cores"]:
        found.append(
            f"THE MACHINE WAS BUSY: load {host['load_before']:.1f} on {host['cores']} cores before the run; "
            "its numbers are not to be trusted"
        )
    if not host["device_counters"]:
        found.append(f"{host['device']} has no counters of its own: no amplification by the device")
    return found


def _cpu_model(cpuinfo: str) -> str:
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _device_model(device: str) -> str:
    """Return what the kernel knows of a block device, or `unknown` (virtio tells no model)."""
    block = Path("/sys/dev/block") / device
    for model in (block / "device" / "model", block / ".." / "device" / "model"):
        if model.is_file():
            return model.read_text().strip()
    return "unknown"
