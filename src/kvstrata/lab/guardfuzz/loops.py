"""Real block devices for the guard: loop devices over sparse files, and proof that nobody wrote to one."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

_CHUNK = 1 << 16
# linux/loop.h; above the numbers that the kernel gives by itself.
_LOOP_CTL_ADD, _LOOP_CTL_REMOVE = 0x4C80, 0x4C81
_FIRST, _LAST = 1000, 1 << 16


class CommandError(RuntimeError):
    """A command that prepares a drive failed: the test cannot say anything."""


def command(argv: Sequence[str], *, stdin: str = "") -> str:
    """Run a command and return its output; CommandError with it otherwise."""
    done = subprocess.run(list(argv), input=stdin, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        raise CommandError(f"{' '.join(argv)}: {done.stdout}{done.stderr}")
    return done.stdout


def _new_device() -> int:
    """Return the number of a loop device that was not there before.

    `losetup --find` would take one that is free, and which somebody else's `losetup --find` may have open at the same
    moment: rightly the guard calls such a device busy.
    """
    with Path("/dev/loop-control").open("rb") as control:
        for number in range(_FIRST + os.getpid() % 1000 * 16, _LAST):
            try:
                return fcntl.ioctl(control, _LOOP_CTL_ADD, number)
            except FileExistsError:
                continue
    raise CommandError("no number is left for a loop device")


def _remove_device(number: int) -> None:
    with Path("/dev/loop-control").open("rb") as control, contextlib.suppress(OSError):
        # It may still be in use for a moment: then it stays, free for everybody.
        fcntl.ioctl(control, _LOOP_CTL_REMOVE, number)


@dataclass
class Loop:
    """A sparse file and, while attached, its loop device."""

    image: Path
    size: int
    device: str = ""
    _clean: list[list[str]] = field(default_factory=list)

    def blank(self) -> None:
        """Make the file all zeros again; not while attached."""
        self._must_be_detached()
        with self.image.open("wb") as stream:
            stream.truncate(self.size)

    def write(self, writes: Iterable[tuple[int, bytes]]) -> None:
        """Write into the file; not while attached, for the device would not see it."""
        self._must_be_detached()
        with self.image.open("r+b") as stream:
            for offset, data in writes:
                stream.seek(offset)
                stream.write(data)
        if self.image.stat().st_size != self.size:
            raise ValueError(f"{self.image}: something was written beyond its end")

    def attach(self, *, partitions: bool = False, read_only: bool = False, sector: int = 512) -> Self:
        """Attach the file to a free loop device; with `partitions`, tell the kernel those of its table.

        By partx and not by the kernel's own scan, which kernels for small virtual machines do not have.
        """
        options = ["--sector-size", str(sector)]
        options += ["--read-only"] if read_only else []
        number = _new_device()
        command(["losetup", *options, f"/dev/loop{number}", str(self.image)])
        self.device = f"/dev/loop{number}"
        if partitions:
            # Whatever it could add of a damaged table is taken back.
            self.undo_later(["sh", "-c", f"partx --delete {self.device} || true"])
            command(["partx", "--add", self.device])
        return self

    def undo_later(self, argv: list[str]) -> None:
        """Run a command before the device is detached."""
        self._clean.append(argv)

    def detach(self) -> None:
        """Undo, the last thing first, and detach."""
        device, self.device = self.device, ""
        try:
            while self._clean:
                command(self._clean.pop())
        finally:
            self._clean.clear()
            if device:
                command(["losetup", "--detach", device])
                _remove_device(int(device.removeprefix("/dev/loop")))

    def _must_be_detached(self) -> None:
        if self.device:
            raise RuntimeError(f"{self.image} is attached to {self.device}")

    @property
    def kernel(self) -> str:
        """As loop3."""
        return self.device.removeprefix("/dev/")

    @property
    def number(self) -> str:
        """major:minor."""
        return Path(f"/sys/block/{self.kernel}/dev").read_text().strip()

    def written(self) -> tuple[int, ...]:
        """Return how often the device was written to and discarded, and how many sectors (block/stat.rst)."""
        fields = [int(word) for word in Path(f"/sys/block/{self.kernel}/stat").read_text().split()]
        return (fields[4], fields[6], *fields[11:14])

    def digest(self) -> str:
        """Return the sha256 of all bytes of the file that are not zero, and where they lie."""
        total = hashlib.sha256()
        with self.image.open("rb") as stream:
            end = 0
            while True:
                try:
                    start = os.lseek(stream.fileno(), end, os.SEEK_DATA)
                except OSError:  # ENXIO: no data after this
                    return total.hexdigest()
                end = os.lseek(stream.fileno(), start, os.SEEK_HOLE)
                # What is allocated and what is zero may change by itself; only bytes that are not zero count.
                for offset in range(start - start % _CHUNK, end, _CHUNK):
                    data = os.pread(stream.fileno(), _CHUNK, offset)
                    if data != bytes(len(data)):
                        total.update(f"{offset}:".encode())
                        total.update(data)
                end += -end % _CHUNK
