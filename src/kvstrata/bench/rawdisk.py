"""The drive itself, without page cache and store: sequential O_DIRECT, by fio, or by threads of our own without it."""

from __future__ import annotations

import json
import mmap
import os
import random
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from kvstrata.bench.errors import BenchError
from kvstrata.bench.sizes import MIB
from kvstrata.bench.statistics import mb_per_s

BLOCK = 4 * MIB
DEPTH = 8
OWN_TOOL = "kvstrata's own O_DIRECT threads"


@dataclass(frozen=True)
class RawSample:
    """One measurement of the drive; rates in MB/s."""

    repeat: int
    tool: str
    write_mb_s: float
    read_mb_s: float
    block_bytes: int = BLOCK
    depth: int = DEPTH


def measure(folder: Path, size: int, seconds: float, repeat: int) -> RawSample:
    """Write and read a file of `size` bytes in `folder`, for `seconds` each at most.

    Raises:
        BenchError: the file system refuses O_DIRECT, or fio failed.
    """
    # Whole rounds of blocks, so that every request in flight has one.
    size = max(size // (BLOCK * DEPTH), 1) * BLOCK * DEPTH
    path = folder / "raw"
    fio = shutil.which("fio")
    try:
        if fio:
            write, read = (_fio(fio, path, kind, size, seconds) for kind in ("write", "read"))
            return RawSample(repeat, _fio_version(fio), write, read)
        return RawSample(repeat, OWN_TOOL, *own(path, size, seconds))
    except OSError as error:
        raise BenchError(f"raw O_DIRECT in {folder}: {error}") from error
    finally:
        path.unlink(missing_ok=True)


def parse_fio(text: str, kind: str) -> float:
    """Return the MB/s of the only job in fio's JSON; `kind` is `read` or `write`."""
    # fio may print notes before its JSON.
    job = json.loads(text[text.index("{") :])["jobs"][0]
    if job["error"] or not job[kind]["io_bytes"]:
        raise BenchError(f"fio {kind}: error {job['error']}, {job[kind]['io_bytes']} bytes")
    return mb_per_s(job[kind]["io_bytes"], job[kind]["runtime"] / 1000)


def own(path: Path, size: int, seconds: float) -> tuple[float, float]:
    """Return the MB/s of writing and of reading a file with DEPTH threads of aligned O_DIRECT requests."""
    written, write_s = _pass(path, os.O_WRONLY | os.O_CREAT, size, seconds)
    read, read_s = _pass(path, os.O_RDONLY, written, seconds)
    return mb_per_s(written, write_s), mb_per_s(read, read_s)


def _pass(path: Path, flags: int, size: int, seconds: float) -> tuple[int, float]:
    descriptor = os.open(path, flags | os.O_DIRECT, 0o600)
    writing = bool(flags & os.O_WRONLY)
    moved = [0] * DEPTH
    failures: list[OSError] = []
    # Anonymous mappings begin at a page: the alignment that O_DIRECT wants.
    buffers = [mmap.mmap(-1, BLOCK) for _ in range(DEPTH)]
    for number, buffer in enumerate(buffers):
        buffer.write(random.Random(number).randbytes(BLOCK))  # noqa: S311
    began = time.monotonic()

    def work(thread: int) -> None:
        try:
            # From the front, so that what was written in a shortened pass can be read.
            for offset in range(thread * BLOCK, size, DEPTH * BLOCK):
                if time.monotonic() - began > seconds:
                    return
                request = os.pwritev if writing else os.preadv
                done = request(descriptor, [buffers[thread]], offset)
                if done != BLOCK:
                    raise OSError(f"{done} of {BLOCK} bytes at {offset}")
                moved[thread] += done
        except OSError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(DEPTH)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        os.close(descriptor)
    taken = time.monotonic() - began
    if failures:
        raise failures[0]
    # What every thread has done: a front without holes.
    whole = min(moved) * DEPTH if writing else sum(moved)
    return whole, taken


def _fio(fio: str, path: Path, kind: str, size: int, seconds: float) -> float:
    command = [
        fio,
        f"--name={kind}",
        f"--filename={path}",
        f"--rw={kind}",
        f"--bs={BLOCK}",
        f"--size={size}",
        f"--iodepth={DEPTH}",
        "--ioengine=libaio",
        "--direct=1",
        f"--runtime={max(1, round(seconds))}",
        "--output-format=json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 120, check=False)
    if done.returncode != 0:
        raise BenchError(f"fio {kind} ended with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return parse_fio(done.stdout, kind)


def _fio_version(fio: str) -> str:
    return subprocess.run([fio, "--version"], capture_output=True, text=True, timeout=30, check=True).stdout.strip()
