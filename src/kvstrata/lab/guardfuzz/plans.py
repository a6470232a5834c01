"""What is put on a drive in a round, and what must follow from it: the oracle, by construction."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kvstrata.lab.guardfuzz.loops import Loop, command
from kvstrata.lab.guardfuzz.samples import SAMPLES, SMALL_ISLAND, gpt, md, within

MIB = 1 << 20
XFS_MIB = 304
"""mkfs.xfs makes nothing smaller than 300 MiB."""


@dataclass
class Plan:
    """One device, and what is known of it."""

    index: int
    loop: Loop
    path: str = ""
    """As the inventory names it."""
    holds: str = "no"
    """Whether it holds data: `no`, `yes`, or `maybe` where no sampling is bound to find it."""
    own: bool = False
    """Whether exactly our file system, or our array, is on it and nothing else."""
    must: set[str] = field(default_factory=set)
    """Reasons that no token overrides and that must be among those given."""
    told: list[str] = field(default_factory=list)
    """What was done to it, for a report."""
    used: bool = False
    """Whether it is in use, for real; then nothing more is done to it."""
    layered: bool = False
    """Whether a sysfs of files tells about it."""
    misnamed: bool = False
    """Whether its name leads to something else than the drive."""


class Templates:
    """File systems that are made once and copied: making one takes longer than judging it."""

    def __init__(self, folder: Path) -> None:
        """Make them below `folder`."""
        self._folder = folder
        self._made: dict[tuple[str, str], Path] = {}

    def image(self, fstype: str, label: str) -> Path:
        """Return the file of a file system: xfs of XFS_MIB, ext4, swap of 64 MiB."""
        key = (fstype, label)
        if key not in self._made:
            path = self._folder / f"{fstype}-{label}.img"
            with path.open("wb") as stream:
                stream.truncate((XFS_MIB if fstype == "xfs" else 64) * MIB)
            tool = {"xfs": ["mkfs.xfs", "-q"], "ext4": ["mkfs.ext4", "-q"], "swap": ["mkswap", "-q"]}[fstype]
            command([*tool, "-L", label, str(path)])
            self._made[key] = path
        return self._made[key]

    def copy(self, fstype: str, label: str, loop: Loop) -> None:
        """Make a drive a copy of one of them, of its size."""
        source = self.image(fstype, label)
        loop.size = source.stat().st_size
        command(["cp", "--sparse=always", str(source), str(loop.image)])


def fill(plan: Plan, rng: random.Random, templates: Templates, fstype: str, *, alone: bool) -> None:
    """Put something on a drive that is not attached.

    Args:
        plan: the drive; what must follow is noted there.
        rng: chooses.
        templates: file systems to copy.
        fstype: of the site, by which our own drives are known.
        alone: whether it is an entry by itself, and not a member of an array.
    """
    loop = plan.loop
    loop.size = rng.choice((24, 32, 48, 64)) * MIB + rng.choice((0, 0, 4096, 40960))
    loop.blank()
    what = rng.choices(
        ("blank", "sample", "samples", "filesystem", "own", "own and more", "island"), (30, 34, 8, 6, 12, 5, 5)
    )[0]
    if what in ("sample", "samples"):
        for sample in rng.sample(SAMPLES, 1 if what == "sample" else rng.randrange(2, 5)):
            loop.write(within(sample.make(loop.size, rng), loop.size))
            plan.told.append(sample.name)
        plan.holds = "yes"
    elif what == "filesystem":
        kind, label = rng.choice(("ext4", "xfs", "swap")), rng.choice(("data", "kvs-z9"))
        templates.copy(kind, label, loop)
        plan.holds = "yes"
        plan.told.append(f"{kind} {label}")
    elif what in ("own", "own and more"):
        templates.copy(fstype, f"kvs-d{plan.index}", loop)
        plan.told.append(f"our {fstype}")
        plan.holds, plan.own = "yes", alone
        if what == "own and more":
            _more(plan, rng)
    elif what == "island":
        loop.write(SMALL_ISLAND.make(loop.size, rng))
        plan.holds = "maybe"
        plan.told.append(SMALL_ISLAND.name)


def _more(plan: Plan, rng: random.Random) -> None:
    """Add a mark at the end of a drive of ours, where its file system has nothing of its own."""
    size = plan.loop.size
    name, writes = rng.choice(
        (
            ("a backup table", gpt(size, rng, parts="backup", partitions=rng.randrange(3))),
            ("a RAID's superblock", md("1.0", "x:data", rng.randbytes(16))(size, rng)),
            ("a BIOS RAID's mark", [(size - 1024, b"Intel Raid ISM Cfg Sig. 1.3.00" + rng.randbytes(100))]),
        )
    )
    plan.loop.write(within(writes, size))
    plan.told.append(name)
    plan.own = False


def fill_array(plans: list[Plan], rng: random.Random, name: str) -> None:
    """Make drives the members of one of our arrays, or of one that is not quite ours."""
    uuid = rng.randbytes(16)
    fault = rng.choice(("", "", "", "uuid", "role", "level", "disks", "name", "one blank", "a table"))
    odd = rng.randrange(len(plans))
    for role, plan in enumerate(plans):
        plan.loop.size = 48 * MIB
        plan.loop.blank()
        fields = {"level": 0, "disks": len(plans), "role": role}
        own_name, own_uuid = f"any:{name}", uuid
        if fault in ("level", "disks"):
            fields[fault] += 1
        if role == odd and fault == "uuid":
            own_uuid = rng.randbytes(16)
        if role == odd and fault == "role":
            fields["role"] = 1 - role
        if role == odd and fault == "name":
            own_name = "any:kvs-z9"
        plan.told.append(f"member {role} of {own_name}, fault: {fault or 'none'}")
        plan.holds, plan.own = "yes", not fault
        if fault == "one blank" and role == odd:
            plan.holds = "no"
            continue
        plan.loop.write(md("1.2", own_name, own_uuid, **fields)(plan.loop.size, rng))
        if fault == "a table" and role == odd:
            plan.loop.write(within(gpt(plan.loop.size, rng, parts="backup"), plan.loop.size))


def expected(plans: list[Plan], tokens: dict[int, bool]) -> tuple[str, list[str]]:
    """Return what an entry of these devices must be, and the reasons that must be among those given.

    Args:
        plans: its devices.
        tokens: for each device's index, whether the right token is given.

    The state is `refused`, `own`, `wipe`, `blank`, or `blank or refused` where a drive holds what need not be found.
    """
    must = sorted({reason for plan in plans for reason in plan.must})
    if must:
        return "refused", must
    if all(plan.own for plan in plans):
        return "own", []
    if any(plan.holds == "yes" and not tokens.get(plan.index) for plan in plans):
        return "refused", []
    if any(plan.holds == "maybe" for plan in plans):
        return "blank or refused", []
    return ("wipe" if any(plan.holds == "yes" for plan in plans) else "blank"), []


# Two names of one namespace are on one controller, too; the guard says the first.
_SAID_BY = {"shared_controller": "two_names"}


def unsaid(must: Iterable[str], reasons: Iterable[str]) -> list[str]:
    """Return which reasons were neither given nor said by another that was."""
    given = set(reasons)
    return sorted(reason for reason in must if reason not in given and _SAID_BY.get(reason) not in given)


def describe(plans: list[Plan]) -> Iterator[str]:
    """Yield one line for each device: what was done to it."""
    for plan in plans:
        holds = f"holds data: {plan.holds}, ours: {plan.own}, must: {sorted(plan.must)}"
        yield f"d{plan.index} {plan.path} ({plan.loop.size >> 20} MiB): {', '.join(plan.told) or 'blank'}; {holds}"
