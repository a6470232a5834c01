"""The commands that change a drive. Nothing here judges: the caller was told by the guard, just before, that it may."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Run = Callable[[Sequence[str]], tuple[int, str, str]]
"""Runs a command; returns its exit status, its output and its errors."""

SETTLE_S = 60
POLL_S = 0.1


def run_command(argv: Sequence[str]) -> tuple[int, str, str]:
    """Run a command that nobody answers: one that asks whether it may go on is told nothing, and does not."""
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            list(argv), env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except OSError as error:
        return 127, "", str(error)
    return done.returncode, done.stdout, done.stderr


class ToolError(Exception):
    """A command failed; the text names it and what it said."""


@contextlib.contextmanager
def claimed(device: str) -> Iterator[None]:
    """Hold a block device as a mount, MD or LVM would: none of them can take it meanwhile. Opened for reading alone."""
    try:
        descriptor = os.open(device, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC)
    except OSError as error:
        raise ToolError(f"{device} cannot be claimed: {error.strerror}") from error
    try:
        yield
    finally:
        os.close(descriptor)


class Tools:
    """What is done to drives, each by the tool that is made for it.

    Args:
        run: see Run.
        sys: where sysfs is.
    """

    def __init__(self, run: Run = run_command, sys: str = "/sys") -> None:
        """Remember how commands are run."""
        self._run = run
        self._sys = sys

    def must(self, *argv: str) -> str:
        """Return a command's output; ToolError unless it succeeds."""
        status, out, err = self._run(argv)
        if status:
            said = (err.strip() or out.strip() or "nothing")[-400:]
            raise ToolError(f"`{' '.join(argv)}` ended with {status}: {said}")
        return out

    # --- looking ---

    def controller_of(self, kernel: str) -> str | None:
        """Return the character device of a namespace's controller, or None where this is no NVMe namespace."""
        if not re.fullmatch(r"nvme\d+n\d+", kernel):
            return None
        above = os.path.realpath(f"{self._sys}/block/{kernel}/device")
        if re.fullmatch(r"nvme\d+", os.path.basename(above)):
            return f"/dev/{os.path.basename(above)}"
        # With native multipath the namespace belongs to a subsystem, whose number need not be its controller's.
        found = [name for name in map(os.path.basename, glob.glob(f"{above}/nvme*")) if re.fullmatch(r"nvme\d+", name)]
        return f"/dev/{found[0]}" if len(found) == 1 else None

    def identify(self, controller: str, nsid: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return `id-ns` and `id-ctrl` of a namespace."""
        id_ns = self.must("nvme", "id-ns", controller, f"--namespace-id={nsid}", "--output-format=json")
        id_ctrl = self.must("nvme", "id-ctrl", controller, "--output-format=json")
        return json.loads(id_ns), json.loads(id_ctrl)

    def list_namespaces(self, controller: str) -> str | None:
        """Return the text of `nvme list-ns`, of all that are allocated where the drive tells those."""
        for options in (["--all"], []):
            status, out, _ = self._run(["nvme", "list-ns", controller, *options])
            if not status and out.strip():
                return out
        return None

    # --- writing ---

    def erase_signatures(self, device: str) -> None:
        """Erase every signature and partition table of a drive. wipefs itself refuses one that is in use."""
        self.must("wipefs", "--all", "--quiet", device)

    def format_namespace(self, device: str, kernel: str, controller: str, nsid: int, index: int) -> None:
        """Give a namespace another LBA format, and wait until the kernel has read its new block size.

        --force leaves out nvme-cli's pause of ten seconds and its own claim; the claim is held here. By way of the
        controller, for nvme-cli does not set the kernel's block size rightly where a format reaches all namespaces.
        """
        with claimed(device):
            self.must(
                *("nvme", "format", controller, f"--namespace-id={nsid}", f"--lbaf={index}", "--ses=0", "--force"),
            )
        self.must("nvme", "ns-rescan", controller)
        self.settle()
        self._await_block_size(kernel, 4096)

    def _await_block_size(self, kernel: str, wanted: int) -> None:
        def seen() -> int:
            try:
                with open(f"{self._sys}/block/{kernel}/queue/logical_block_size") as stream:
                    return int(stream.read())
            except (OSError, ValueError):
                return 0

        deadline = time.monotonic() + SETTLE_S
        while seen() != wanted:
            if time.monotonic() > deadline:
                raise ToolError(f"{kernel} has blocks of {seen()} bytes {SETTLE_S} s after its format to {wanted}")
            # Between two looks at the condition; sysfs has nothing to wait on.
            time.sleep(POLL_S)

    def make_array(self, name: str, devices: Sequence[str]) -> str:
        """Make a RAID0 of blank drives; return its device.

        Neither --run nor --force: where mdadm sees something on a drive it asks, and has nobody to say yes.
        The home host `any` makes every host give it the same name, whatever its own name is when it assembles it.
        """
        path = f"/dev/md/kvs-{name}"
        self.must(
            *("mdadm", "--create", path, f"--name=kvs-{name}", "--homehost=any", "--level=0", "--metadata=1.2"),
            *(f"--raid-devices={len(devices)}", *devices),
        )
        self.settle()
        return os.path.realpath(path)

    def assemble_array(self, name: str, uuid: str, devices: Sequence[str]) -> str:
        """Start an array that is whole but not running; return its device. mdadm starts no RAID0 with a gap."""
        path = f"/dev/md/kvs-{name}"
        self.must("mdadm", "--assemble", path, f"--uuid={uuid}", *devices)
        self.settle()
        return os.path.realpath(path)

    def make_filesystem(self, device: str, fstype: str, label: str) -> None:
        """Make a file system on a blank device.

        mkfs.xfs refuses a device with a signature as long as it is not given -f. mkfs.ext4 looks only where it has a
        terminal to ask on, so this looks for it. ext4 otherwise keeps 5 % for root, of no use on a store's drive.
        """
        seen = self.must("wipefs", "--no-act", "--noheadings", "--output=TYPE", device).split()
        if seen:
            raise ToolError(f"{device} was to be blank for its new file system and carries: {', '.join(seen)}")
        if fstype == "xfs":
            self.must("mkfs.xfs", "-q", "-L", label, device)
        else:
            self.must("mkfs.ext4", "-q", "-m", "0", "-L", label, device)
        self.settle()

    def settle(self) -> None:
        """Wait until udev has made the names that follow from a change; where there is no udev, there are none."""
        if os.path.exists("/run/udev/control"):
            self.must("udevadm", "settle", f"--timeout={SETTLE_S}")

    def update_initramfs(self) -> None:
        """Make the initramfs of every installed kernel anew: any of them may be the one that boots next."""
        if shutil.which("update-initramfs"):
            self.must("update-initramfs", "-u", "-k", "all")
        else:
            self.must("dracut", "--force", "--regenerate-all")
