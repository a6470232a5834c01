"""Read drives for a moment past the page cache, one after the other, and print how fast. Nothing is written."""

from __future__ import annotations

import itertools
import json
import mmap
import os
import random
import stat
import sys
import threading
import time
from pathlib import Path

BLOCK = 1 << 20
# As many reads at a time as half the depth of the recorded baseline: enough for any drive to be busy.
THREADS = 16
SPAN = 64
SPANS = 4
SECONDS = 2.0
MOST_FILES = 32


def written_files(mount: str) -> list[tuple[str, int]]:
    """The largest files without holes on a file system, and their whole MiB."""
    found = []
    device = os.lstat(mount).st_dev
    for folder, _, files in os.walk(mount):
        for name in files:
            path = folder + os.sep + name
            try:
                status = os.lstat(path)
            except OSError:
                continue  # a store that is at work removes files
            full = status.st_blocks * 512 >= status.st_size >= 16 * BLOCK
            if full and stat.S_ISREG(status.st_mode) and status.st_dev == device:
                found.append((path, status.st_size // BLOCK))
    return sorted(found, key=lambda entry: -entry[1])[:MOST_FILES]


def opened(path: str) -> int:
    """A file to be read past the page cache."""
    return os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)


def places(sources: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Where to read, as descriptor and offset: some runs of blocks that follow each other, each at a random place."""
    whole = [(descriptor, block * BLOCK) for descriptor, blocks in sources for block in range(blocks)]
    found = []
    for _ in range(SPANS):
        start = random.randrange(max(1, len(whole) - SPAN + 1))  # noqa: S311 - a place, no secret
        found += whole[start : start + SPAN]
    return found


class Device:
    """The places of a device are counted, not listed: a drive has millions of blocks."""

    def __init__(self, descriptor: int, blocks: int) -> None:
        """Of a device that is open, its whole MiB."""
        self.descriptor = descriptor
        self.blocks = blocks

    def places(self) -> list[tuple[int, int]]:
        """The same as of files."""
        starts = [random.randrange(max(1, self.blocks - SPAN + 1)) for _ in range(SPANS)]  # noqa: S311
        ends = [(start, min(start + SPAN, self.blocks)) for start in starts]
        return [(self.descriptor, block * BLOCK) for start, end in ends for block in range(start, end)]


def read(where: list[tuple[int, int]], deadline: float) -> tuple[list[float], str]:
    """When each read ended, in order, and why one failed."""
    ended: list[float] = []
    failures: list[str] = []
    turns = itertools.count()

    def work() -> None:
        # Anonymous memory begins at a page, as reads past the page cache must.
        with mmap.mmap(-1, BLOCK) as buffer:
            while not failures and time.monotonic() < deadline:
                turn = next(turns)
                if turn >= len(where):
                    return
                try:
                    os.preadv(where[turn][0], [buffer], where[turn][1])
                except OSError as error:
                    failures.append(error.strerror or str(error))
                    return
                ended.append(time.monotonic())

    threads = [threading.Thread(target=work, daemon=True) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(ended), failures[0] if failures else ""


def spans(began: float, ended: list[float]) -> list[dict[str, float]]:
    """Bytes and seconds of each run of reads; a drive that is slow may not end the first."""
    found = []
    for start in range(0, len(ended), SPAN):
        part = ended[start : start + SPAN]
        found.append({"bytes": len(part) * BLOCK, "seconds": round(part[-1] - began, 6)})
        began = part[-1]
    return found


def traffic(number: str) -> int:
    """Bytes that a device has read and written so far (Documentation/admin-guide/iostats)."""
    try:
        fields = Path("/sys/dev/block", number, "stat").read_text().split()
    except OSError:
        return 0
    return (int(fields[2]) + int(fields[6])) * 512


def measured(drive: dict[str, str | bool]) -> dict[str, object]:
    """What one drive did: the spans read, from what, and what others moved meanwhile."""
    usage = os.statvfs(str(drive["mount"]))
    files = written_files(str(drive["mount"])) if drive["written"] else []
    descriptors: list[int] = []
    try:
        sources = []
        if sum(blocks for _, blocks in files) >= SPAN:
            for path, blocks in files:
                try:
                    descriptors.append(opened(path))
                    sources.append((descriptors[-1], blocks))
                except OSError:
                    continue
        if sources:
            where = places(sources)
        else:
            descriptors.append(opened(str(drive["device"])))
            where = Device(descriptors[0], os.lseek(descriptors[0], 0, os.SEEK_END) // BLOCK).places()
        before, began = traffic(str(drive["number"])), time.monotonic()
        ended, failure = read(where, began + SECONDS)
        seconds = time.monotonic() - began
        own = len(ended) * BLOCK
        others = traffic(str(drive["number"])) - before - own
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    return {
        "spans": spans(began, ended),
        "seconds": round(seconds, 6),
        "others_bytes": max(0, others),
        "from": "files" if sources else "device",
        "used_bytes": (usage.f_blocks - usage.f_bfree) * usage.f_frsize,
        "size_bytes": usage.f_blocks * usage.f_frsize,
        "error": failure,
    }


def main() -> None:
    """Measure each drive of the argument."""
    found = {}
    for name, drive in json.loads(sys.argv[1]).items():
        try:
            found[name] = measured(drive)
        except PermissionError as error:
            # A container whose host keeps the device from it: that tells nothing of the drive.
            found[name] = {"spans": [], "error": error.strerror, "denied": True}
        except OSError as error:
            found[name] = {"spans": [], "error": error.strerror or str(error)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
