"""How fio is asked for a drive's baseline, what it answers, and what it may read. Everything here only reads."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SCHEMA = 1
"""Of the local fact. Raised when a field changes its meaning; a new field does not raise it."""

PATTERNS = {
    "seq_1m": ("read", "1m"),
    "rand_4k": ("randread", "4k"),
    "rand_128k": ("randread", "128k"),
}
"""Name in the fact -> kind and block size: pieces of the cache as they lie in blob files, index blocks, small blobs."""
DEPTH = 32

_FILE_BYTES = 16 << 20
_ENOUGH_BYTES = 1 << 30
_MOST_FILES = 32


@dataclass(frozen=True)
class Data:
    """What on a drive is worth reading."""

    paths: tuple[str, ...]
    total: int
    """Bytes of all of them."""

    @property
    def enough(self) -> bool:
        """Whether reading it tells something of the drive rather than of a cache in it."""
        return self.total >= _ENOUGH_BYTES


def written_data(mount: str) -> Data:
    """Return the largest files of a file system that are written throughout: no holes, and 16 MiB at least."""
    found: list[tuple[int, str]] = []
    device = os.lstat(mount).st_dev
    for folder, subfolders, files in os.walk(mount):
        subfolders[:] = [name for name in subfolders if _device(os.path.join(folder, name)) == device]
        for name in files:
            path = os.path.join(folder, name)
            try:
                status = os.lstat(path)
            except OSError:
                continue  # a store that is at work removes files
            is_full = status.st_blocks * 512 >= status.st_size >= _FILE_BYTES
            if is_full and not os.path.islink(path):
                found.append((status.st_size, path))
    found = sorted(found, reverse=True)[:_MOST_FILES]
    return Data(tuple(path for _, path in found), sum(size for size, _ in found))


def _device(path: str) -> int:
    try:
        return os.lstat(path).st_dev
    except OSError:
        return -1


def command(paths: Sequence[str], seconds: int) -> list[str]:
    """Return the fio command that reads a device, or files, with each pattern for some seconds.

    Strictly for reading: --readonly, nothing is made where a file is not there, no cache of the device is flushed.
    """
    argv = ["fio", "--readonly", "--output-format=json", "--direct=1", "--ioengine=libaio", "--invalidate=0"]
    argv += ["--allow_file_create=0", "--time_based", f"--runtime={seconds}", f"--iodepth={DEPTH}", "--norandommap"]
    argv += ["--filename=" + ":".join(path.replace(":", "\\:") for path in paths)]
    for name, (kind, block) in PATTERNS.items():
        order = "sequential" if kind == "read" else "random"
        argv += [f"--name={name}", "--stonewall", f"--rw={kind}", f"--bs={block}", f"--file_service_type={order}"]
    return argv


def parse(out: str) -> dict[str, Any]:
    """Return `fio`, its version, and for each pattern mb_per_s (10^6 bytes), iops and p99_us.

    Raises:
        ValueError: where a pattern is missing or failed, with what fio said.
    """
    start = out.find("{")
    document = json.loads(out[start:]) if start >= 0 else {}
    jobs = {job["jobname"]: job for job in document.get("jobs", [])}
    result: dict[str, Any] = {"fio": document.get("fio version", "")}
    for name in PATTERNS:
        job = jobs.get(name)
        if job is None or job.get("error"):
            raise ValueError(f"fio did not finish {name}: error {job['error'] if job else 'none'}; {out[:300]}")
        read = job["read"]
        if not read["total_ios"]:
            raise ValueError(f"fio read nothing in {name}")
        result[name] = {
            "mb_per_s": round(read["bw_bytes"] / 1e6, 1),
            "iops": round(read["iops"]),
            "p99_us": round(read["clat_ns"]["percentile"]["99.000000"] / 1000, 1),
        }
    return result


def identity(entry: dict[str, Any]) -> list[list[Any]]:
    """Return what makes a drive the same one for its baseline: devices and block size, not what is on them.

    A device that tells neither serial number nor wwid (the lab's) is known by its name.
    """
    known = []
    for device in entry["devices"]:
        name = "" if device["serial"] or device["wwid"] else device["path"]
        known.append([device["serial"], device["wwid"], name, device["size_bytes"], device["lba_bytes"]])
    return sorted(known)
