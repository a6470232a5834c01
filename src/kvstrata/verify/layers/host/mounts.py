"""Whether each drive of the inventory is the one that is mounted in its place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from kvstrata.cluster import Mount
from kvstrata.verify.check import Check, UnableError, UnmetError
from kvstrata.verify.context import NodeContext
from kvstrata.verify.layers.host.survey import Survey


@dataclass(frozen=True)
class Mounted:
    """What lies at a mount point. Devices are numbers as "259:0"."""

    source: str
    fstype: str
    root: str
    number: str
    options: tuple[str, ...]
    uuid: str
    leaves: tuple[tuple[str, str], ...]
    """The drives below it with their kernel names: itself, or the members of a RAID."""

    def __str__(self) -> str:
        """Return it in words."""
        return f"{self.fstype} from {self.source} ({self.number}), {self.options[0]}"


@dataclass(frozen=True)
class Named:
    """A drive as the inventory names it, and where that name leads on the node."""

    name: str
    path: str
    number: str


def checks(ctx: NodeContext, survey: Survey) -> Iterator[Check]:
    """Every mount that the inventory names."""
    for mount in ctx.node.mounts:
        drive = mount.device or ", ".join(mount.devices)
        yield ctx.question(
            "host.mount",
            mount.path,
            f"a mounted {mount.fstype} file system of {drive or 'a block device'}, writable",
            ctx.command(f"findmnt --target {mount.path}"),
        ).ask(partial(judge, survey, mount))


def drive_of(mount: Mount) -> str:
    """The drive's name in the inventory, after which its mount is named."""
    return mount.path.rpartition("/")[2]


def mounted(survey: Survey, path: str) -> Mounted:
    """What is mounted there. UnmetError where nothing is; UnableError where that could not be told."""
    first, _, text = survey.part(f"mount {path}").partition("\n")
    if first == "exit 1":
        # findmnt's way to say that it found nothing.
        raise UnmetError("not a mount point")
    if first != "exit 0":
        raise UnableError(f"`findmnt` ended with {first} and said: {text or 'nothing'}")
    # The last one mounted there is the one that is seen.
    found = json.loads(text)["filesystems"][-1]
    words = [line.split() for line in survey.get(f"block {path}").splitlines()]
    return Mounted(
        source=found["source"],
        fstype=found["fstype"],
        root=found["fsroot"],
        number=found["maj:min"].strip(),
        options=tuple(found["options"].split(",")),
        uuid=found.get("uuid") or "",
        leaves=tuple((line[1], line[2]) for line in words if line[:1] == ["leaf"] and len(line) == 3),
    )


def named(survey: Survey, path: str) -> list[Named]:
    """Where the inventory's names of a mount's drives lead; a number is empty where there is no such device."""
    found = []
    for line in survey.part(f"devices {path}").splitlines():
        name, *words = line.split()
        number = f"{int(words[-2], 16)}:{int(words[-1], 16)}" if len(words) == 3 else ""
        found.append(Named(name, words[0] if words else "", number))
    return found


def judge(survey: Survey, mount: Mount) -> str:
    """What is mounted, where it is what must be; UnmetError where not."""
    found = mounted(survey, mount.path)
    if found.fstype != mount.fstype:
        raise UnmetError(str(found))
    # Major number 0 is for file systems without a device: tmpfs, overlay, network file systems.
    if found.number.startswith("0:"):
        raise UnmetError(f"{found}: not from a block device")
    if found.root != "/":
        raise UnmetError(f"{found}: the folder {found.root} of another file system, bound there")
    if "ro" in found.options:
        raise UnmetError(f"{found}: read-only")
    wanted = named(survey, mount.path)
    for drive in wanted:
        if not drive.number:
            raise UnmetError(f"{found}, and there is no {drive.name}")
    numbers = {drive.number for drive in wanted}
    # The device itself, or one that lies on exactly these drives: a RAID, or a layer of device-mapper.
    if wanted and found.number not in numbers and {number for number, _ in found.leaves} != numbers:
        drives = ", ".join(f"{drive.name} is {drive.path} ({drive.number})" for drive in wanted)
        raise UnmetError(f"{found}, another drive: {drives}")
    return str(found)
