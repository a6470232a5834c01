"""Real uses of a drive in a round, and the sysfs of files that tells another story about it."""

from __future__ import annotations

import os
import random
import subprocess
from contextlib import ExitStack
from pathlib import Path

from kvstrata.lab.guardfuzz.loops import CommandError, command
from kvstrata.lab.guardfuzz.plans import Plan

_PIPE = subprocess.PIPE


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.communicate()


def attach(plan: Plan, rng: random.Random) -> None:
    """Attach a drive, at times read-only, with larger blocks, or with the kernel told of its partitions."""
    read_only = rng.random() < 0.04
    sector = 4096 if rng.random() < 0.15 and plan.loop.size % 4096 == 0 and not plan.own else 512
    partitions = plan.holds == "yes" and not plan.own and sector == 512 and rng.random() < 0.4
    try:
        plan.loop.attach(partitions=partitions, read_only=read_only, sector=sector)
    except CommandError:
        if not plan.loop.device:
            raise
        plan.told.append("(not all partitions could be added)")
    if read_only:
        plan.must.add("read_only")
        plan.told.append("read-only")


def use(plan: Plan, rng: random.Random, folder: Path, stack: ExitStack, mount: Path) -> None:
    """Let something use the drive for real, or not.

    Args:
        plan: the drive, attached.
        rng: chooses.
        folder: for mount points.
        stack: what undoes it.
        mount: where a drive of ours belongs.
    """
    device = plan.loop.device
    filesystem = any(word in told for told in plan.told for word in ("xfs ", "ext4 ", "our "))
    swap = plan.told[:1] in (["swap data"], ["swap kvs-z9"])
    choices = {"none": 60, "claimed": 6, "written": 6, "read": 6, "loop": 0 if plan.layered else 6}
    choices |= {"mounted": 14, "mounted in another namespace": 14} if filesystem else {}
    choices |= {"swap": 30} if swap and "read_only" not in plan.must else {}
    what = rng.choices(list(choices), list(choices.values()))[0]
    if what == "none":
        return
    plan.told.append(what)
    plan.used = True
    if what == "claimed":
        stack.callback(os.close, os.open(device, os.O_RDONLY | os.O_EXCL))
        # A claim is not tried where sysfs says already who has the drive.
        plan.must |= set() if plan.must & {"holder", "mounted", "busy"} else {"busy"}
    elif what in ("written", "read"):
        writes = what == "written" and "read_only" not in plan.must
        with Path(device).open("r+b" if writes else "rb") as stream:
            stack.callback(_stop, subprocess.Popen(["sleep", "600"], stdin=stream, text=True))
        plan.must |= {"busy"} if writes else set()
    elif what == "loop":
        above = command(["losetup", "--find", "--show", "--read-only", device]).strip()
        stack.callback(command, ["losetup", "--detach", above])
        plan.must.add("holder")
    elif what == "swap":
        command(["swapon", "--priority", "0", device])
        stack.callback(command, ["swapoff", device])
        plan.must.add("swap_in_use")
    else:
        _mount(plan, rng, folder, stack, mount, elsewhere=what != "mounted")


def _mount(plan: Plan, rng: random.Random, folder: Path, stack: ExitStack, mount: Path, *, elsewhere: bool) -> None:
    kind = "ext4" if any("ext4" in told for told in plan.told) else "xfs"
    # Read-only and without replaying a journal, or the kernel itself would write.
    options = "ro,noload" if kind == "ext4" else "ro,norecovery,nouuid"
    at_home = plan.own and not elsewhere and rng.random() < 0.5
    point = mount if at_home else folder / f"mnt{plan.index}"
    point.mkdir(parents=True, exist_ok=True)
    argv = ["mount", "-t", kind, "-o", options, plan.loop.device, str(point)]
    if not elsewhere:
        try:
            command(argv)
        except CommandError:
            plan.told.append("(which was impossible)")
            return
        stack.callback(command, ["umount", str(point)])
    else:
        # Where the mount fails, the shell ends, and its output with it.
        script = f"{' '.join(argv)} && echo ready && read _"
        shell = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
        process = subprocess.Popen(shell, stdin=_PIPE, stdout=_PIPE, stderr=subprocess.DEVNULL, text=True)
        stack.callback(_stop, process)
        if process.stdout is None or process.stdout.readline() != "ready\n":
            plan.told.append("(which was impossible)")
            return
    if not at_home:
        plan.must.add("mounted")
