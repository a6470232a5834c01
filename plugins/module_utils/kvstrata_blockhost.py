"""How a host's block devices are read: /sys, /proc, /dev and two commands. Nothing here can write.

Every path and every command goes through a `Host`, so that tests can put a folder of files in the place of a machine.
Needs nothing but the standard library of Python 3.9, as all that runs on nodes.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

_OCTAL = re.compile(r"\\([0-7]{3})")


def run_command(argv: Sequence[str]) -> tuple[int, str]:
    """Run a command that only looks; return its exit status and what it printed.

    Raises:
        OSError: if it is not there, or did not answer within a minute.
    """
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            list(argv),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=60,
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{argv[0]} did not answer in {error.timeout:.0f} s") from error
    return done.returncode, done.stdout.decode(errors="replace")


def unescape(text: str) -> str:
    r"""Return a path as it is, of one as /proc writes it: `\040` is a blank."""
    return _OCTAL.sub(lambda match: chr(int(match.group(1), 8)), text)


@dataclass(frozen=True)
class Host:
    """One machine. The defaults are the machine that this runs on."""

    sys: str = "/sys"
    proc: str = "/proc"
    dev: str = "/dev"
    udev: str = "/run/udev/data"
    run: Callable[[Sequence[str]], tuple[int, str]] = run_command
    """Runs a command that only looks: argument list to exit status and output."""
    stand_ins: Mapping[str, str] = field(default_factory=dict)
    """Files that stand for devices, in tests: path to major:minor."""

    def real(self, path: str) -> str:
        """Return where a path below /dev lies."""
        return self.dev + path[len("/dev") :] if path.startswith("/dev/") else path

    def kind(self, path: str) -> str:
        """Return `missing` (a link to nowhere too), `block` or `other`."""
        try:
            mode = os.stat(self.real(path)).st_mode
        except OSError:
            return "missing"
        return "block" if stat.S_ISBLK(mode) or self.number(path) else "other"

    def number(self, path: str) -> str:
        """Return major:minor of a block device, or nothing where the path is none."""
        try:
            status = os.stat(self.real(path))
            if not stat.S_ISBLK(status.st_mode):
                return self.stand_ins.get(os.path.realpath(self.real(path)), "") if self.stand_ins else ""
        except OSError:
            # Also one that ends meanwhile, as the open files of another process do.
            return ""
        return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"

    def open(self, path: str, *, exclusive: bool = False) -> int:
        """Open a device for reading, always read-only.

        Args:
            path: the device.
            exclusive: with O_EXCL, which fails while anything claims the device: a mount, a holder, a partition in use.

        Raises:
            OSError: as open(2).
        """
        flags = os.O_RDONLY | os.O_CLOEXEC | (os.O_EXCL if exclusive else 0)
        return os.open(self.real(path), flags)

    def folder(self, number: str) -> str:
        """Return the folder of sysfs of the block device `number`, without links in it."""
        return os.path.realpath(f"{self.sys}/dev/block/{number}")


def text(path: str) -> str:
    """Return a file's text without blanks around it, or nothing where it cannot be read (a process that ended)."""
    try:
        with open(path, "rb") as stream:
            return stream.read().decode(errors="replace").strip()
    except OSError:
        return ""


def names(folder: str) -> list[str]:
    """Return what is in a folder, or nothing where it cannot be read."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def link(path: str) -> str:
    """Return where a symbolic link points, or nothing."""
    try:
        return os.readlink(path)
    except OSError:
        return ""


def whole_number(string: str, default: int) -> int:
    """Return the number that a file of sysfs holds, or `default` where it holds none."""
    return int(string) if re.fullmatch(r"-?\d+", string) else default
