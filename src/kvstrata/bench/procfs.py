"""What the kernel counts: bytes and CPU of a process, sectors of a device, and which device is below a folder."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
# The unit of /proc/diskstats, whatever the device's own sector size is (Documentation/admin-guide/iostats.rst).
_SECTOR = 512
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_IN_MEMORY = frozenset(("tmpfs", "ramfs", "devtmpfs"))


@dataclass(frozen=True)
class Usage:
    """What processes used since their start: bytes to and from storage, seconds of CPU."""

    read_bytes: int = 0
    write_bytes: int = 0
    cpu_s: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        """Return the sum."""
        return Usage(self.read_bytes + other.read_bytes, self.write_bytes + other.write_bytes, self.cpu_s + other.cpu_s)

    def __sub__(self, other: Usage) -> Usage:
        """Return what was used since `other`."""
        return Usage(self.read_bytes - other.read_bytes, self.write_bytes - other.write_bytes, self.cpu_s - other.cpu_s)


@dataclass(frozen=True)
class Disk:
    """What a device moved since boot, in bytes, for everybody who uses it."""

    read_bytes: int
    write_bytes: int


@dataclass(frozen=True)
class Mount:
    """Where a folder lies."""

    point: str
    fstype: str
    source: str
    device: str

    @property
    def in_memory(self) -> bool:
        """Whether the file system has no drive below it."""
        return self.fstype in _IN_MEMORY


def process_usage(pid: int) -> Usage:
    """Return what a process used until now.

    From /proc/PID/io (read_bytes: fetched from storage; write_bytes: dirtied in the page cache or written directly)
    and fields 14 and 15, utime and stime, of /proc/PID/stat.
    """
    io = dict(line.split(": ") for line in (PROC / str(pid) / "io").read_text().splitlines())
    # The name, in parentheses, may hold spaces: count from its end.
    after_name = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    cpu_s = (int(after_name[11]) + int(after_name[12])) / _TICKS_PER_S
    return Usage(int(io["read_bytes"]), int(io["write_bytes"]), cpu_s)


def parse_cpu(text: str) -> float:
    """Return the seconds of CPU that the whole machine used since boot, from /proc/stat.

    Time stolen by the hypervisor counts: it was no more ours than another program's. Waiting for a drive does not.
    """
    user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = map(int, text.splitlines()[0].split()[1:])
    return (user + nice + system + irq + softirq + steal) / _TICKS_PER_S


def foreign_cpu_s(servers: Usage) -> float:
    """Return the seconds of CPU since boot that were not this program's, its children's, or those running servers'.

    Only differences mean anything. Children count once they were waited for, so no client may be running.
    """
    own = sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )
    return parse_cpu((PROC / "stat").read_text()) - own - servers.cpu_s


def parse_diskstats(text: str, device: str) -> Disk | None:
    """Return a device's counters from /proc/diskstats; `device` is `major:minor`. None if it has none."""
    for line in text.splitlines():
        fields = line.split()
        if f"{fields[0]}:{fields[1]}" == device:
            return Disk(int(fields[5]) * _SECTOR, int(fields[9]) * _SECTOR)
    return None


def disk(device: str) -> Disk | None:
    """Return a device's counters, or None where it has none (btrfs, overlay, network)."""
    return parse_diskstats((PROC / "diskstats").read_text(), device)


def parse_mounts(text: str, folder: str) -> Mount:
    """Return the mount that holds an absolute folder, from the text of /proc/self/mountinfo."""
    best: Mount | None = None
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split()
        point = fields[4].replace("\\040", " ")
        inside = folder == point or folder.startswith(point.rstrip("/") + "/")
        # A later mount of the same point hides the earlier one.
        if inside and (best is None or len(point) >= len(best.point)):
            fstype, source, *_ = right.split()
            best = Mount(point, fstype, source, fields[2])
    if best is None:
        raise ValueError(f"no mount holds {folder}")
    return best


def mount_of(folder: Path) -> Mount:
    """Return the mount that holds an existing folder."""
    return parse_mounts((PROC / "self" / "mountinfo").read_text(), str(folder.resolve()))


def drop_cache(folder: Path) -> int:
    """Write back every file below `folder` and take it out of the page cache; return the bytes of the files.

    Works without root: POSIX_FADV_DONTNEED drops clean pages, and fsync made them clean. Pages that somebody maps or
    writes again stay, so that a cold read proves itself by the bytes that it fetches from the device.
    """
    total = 0
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            total += os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
    return total
