"""What kvstrata made: a file system by its label, a RAID0 by its name and what is on it; each piece that is not so."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from kvstrata.lab.guardfuzz.machine import Machine
from kvstrata.lab.guardfuzz.samples import gpt, md, within
from tests.guard.drives import MOUNT, SIZE, entry, judge, nvme, reasons, states

ROOT = "1 0 0:1 / / rw - overlay overlay rw"
UUID = bytes(range(16))


def signature(kind: str, label: str, uuid: str = "5d5e5f", offset: str = "0x0") -> dict[str, str]:
    return {"device": "x", "offset": offset, "type": kind, "label": label, "uuid": uuid}


class Tools:
    """wipefs and blkid that answer by device."""

    def __init__(self) -> None:
        self.found: dict[str, list[dict[str, str]]] = {}

    def run(self, argv: list[str]) -> tuple[int, str]:
        found = self.found.get(Path(argv[-1]).name, [])
        if argv[0] == "wipefs":
            return 0, json.dumps({"signatures": found}) if found else ""
        return 2, ""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def host_of(machine: Machine, tools: Tools) -> Any:
    host = machine.host()
    return type(host)(**{**vars(host), "run": tools.run})


# --- one drive ---


def test_our_file_system_is_ours_with_its_uuid(machine: Machine) -> None:
    tools = Tools()
    path = nvme(machine)
    tools.found["nvme-eui.01"] = [signature("xfs", "kvs-d0", "u-1")]
    drive = judge(host_of(machine, tools), entry(path)).drives["d0"]
    assert (drive.state, drive.fstype, drive.uuid, drive.source, drive.mounted) == ("own", "xfs", "u-1", path, False)


@pytest.mark.parametrize(
    "found",
    [
        [signature("xfs", "kvs-d1")],
        [signature("xfs", "data")],
        [signature("xfs", "")],
        [signature("ext4", "kvs-d0")],
        [signature("xfs", "kvs-d0"), signature("ext4", "kvs-d0", offset="0x438")],
        [signature("xfs", "kvs-d0"), signature("linux_raid_member", "kvs-d0", offset="0x1000")],
    ],
)
def test_anything_else_is_not(machine: Machine, found: list[dict[str, str]]) -> None:
    tools = Tools()
    path = nvme(machine)
    tools.found["nvme-eui.01"] = found
    assert "filesystem" in reasons(judge(host_of(machine, tools), entry(path)))


def test_our_file_system_may_be_mounted_where_it_belongs_and_below(machine: Machine) -> None:
    tools = Tools()
    path = nvme(machine)
    tools.found["nvme-eui.01"] = [signature("xfs", "kvs-d0")]
    machine.process(1, [ROOT, f"30 1 259:1 / {MOUNT} rw - xfs /dev/nvme0n1 rw"], "host")
    # A unit with ReadWritePaths= sees a part of it as a mount of its own.
    machine.process(9, [ROOT, f"30 1 259:1 /db {MOUNT}/db rw - xfs /dev/nvme0n1 rw"], "unit")
    drive = judge(host_of(machine, tools), entry(path)).drives["d0"]
    assert (drive.state, drive.mounted) == ("own", True)


@pytest.mark.parametrize("point", ["/mnt", f"{MOUNT}0", "/var/lib/kvstrata/drives", "/"])
def test_our_file_system_mounted_elsewhere_is_refused(machine: Machine, point: str) -> None:
    tools = Tools()
    path = nvme(machine)
    tools.found["nvme-eui.01"] = [signature("xfs", "kvs-d0")]
    machine.process(1, [ROOT, f"30 1 259:1 / {point} rw - xfs /dev/nvme0n1 rw"], "host")
    assert "mounted" in reasons(judge(host_of(machine, tools), entry(path)))


def test_our_own_drive_is_still_checked_for_what_it_is(machine: Machine) -> None:
    tools = Tools()
    path = nvme(machine)
    tools.found["nvme-eui.01"] = [signature("xfs", "kvs-d0")]
    host = host_of(machine, tools)
    assert reasons(judge(host, entry(path, serial="S9", size_gib=1))) == ["other_serial", "smaller"]


def test_a_stranger_on_our_mount_point_is_refused(machine: Machine) -> None:
    tools = Tools()
    path = nvme(machine)
    tools.found["nvme-eui.01"] = [signature("ext4", "data")]
    machine.process(1, [ROOT, f"30 1 259:1 / {MOUNT} rw - ext4 /dev/nvme0n1 rw"], "host")
    assert reasons(judge(host_of(machine, tools), entry(path))) == ["mounted", "filesystem"]


# --- an array ---


class Raid:
    """Two drives that are, or were, members of one RAID0."""

    def __init__(self, machine: Machine, **changes: Any) -> None:
        self.machine, self.tools = machine, Tools()
        self.paths = [nvme(machine, 0), nvme(machine, 1)]
        for index in range(2):
            self.member(index, **changes)

    def member(self, index: int, name: str = "any:kvs-r0", uuid: bytes = UUID, **changes: Any) -> None:
        image = self.machine.root / f"nvme{index}n1.img"
        fields = {"level": 0, "disks": 2, "role": index, **changes}
        with image.open("r+b") as stream:
            for offset, data in md("1.2", name, uuid, **fields)(SIZE, None):
                stream.seek(offset)
                stream.write(data)
        found = signature("linux_raid_member", name, "m", "0x1000")
        self.tools.found[f"nvme-eui.{index}1"] = [found]

    def assemble(self, label: str = "kvs-r0", kind: str = "xfs") -> None:
        image = self.machine.root / "md127.img"
        with image.open("wb") as stream:
            stream.truncate(SIZE)
        self.machine.device("md127", "9:127", SIZE, target=str(image), md__level="raid0")
        for index in range(2):
            self.machine.holder(self.machine.folder(f"nvme{index}n1"), "md127", "9:127")
        if kind:
            self.tools.found["md127"] = [signature(kind, label, "u-9")]

    def judge(self, **fields: Any) -> Any:
        return judge(host_of(self.machine, self.tools), entry(self.paths, "r0", **fields))


def test_two_blank_drives_become_an_array(machine: Machine) -> None:
    drive = judge(machine.host(), entry([nvme(machine), nvme(machine, 1)], "r0")).drives["r0"]
    assert (drive.state, drive.source, drive.array) == ("blank", "", "")


def test_our_array_with_our_file_system_is_ours(machine: Machine) -> None:
    raid = Raid(machine)
    raid.assemble()
    drive = raid.judge().drives["r0"]
    assert (drive.state, drive.fstype, drive.uuid, drive.source) == ("own", "xfs", "u-9", "/dev/md127")
    assert drive.array == UUID.hex()


def test_our_array_may_be_mounted_where_it_belongs(machine: Machine) -> None:
    raid = Raid(machine)
    raid.assemble()
    point = "/var/lib/kvstrata/drives/r0"
    machine.process(1, [ROOT, f"30 1 9:127 / {point} rw - xfs /dev/md127 rw"], "host")
    drive = raid.judge().drives["r0"]
    assert (drive.state, drive.mounted) == ("own", True)
    machine.process(1, [ROOT, "30 1 9:127 / /mnt rw - xfs /dev/md127 rw"], "host")
    assert reasons(raid.judge(), "r0") == ["child_in_use"] * 2


def test_our_array_that_is_not_assembled_is_ours_without_a_source(machine: Machine) -> None:
    drive = Raid(machine).judge().drives["r0"]
    assert (drive.state, drive.source, drive.uuid, drive.array) == ("own", "", "", UUID.hex())


def test_our_array_whose_file_system_was_never_made_is_ours_and_blank(machine: Machine) -> None:
    raid = Raid(machine)
    raid.assemble(kind="")
    drive = raid.judge().drives["r0"]
    assert (drive.state, drive.source, drive.uuid) == ("own", "/dev/md127", "")


def test_our_array_with_data_that_no_tool_knows_is_refused(machine: Machine) -> None:
    raid = Raid(machine)
    raid.assemble(kind="")
    with (machine.root / "md127.img").open("r+b") as stream:
        stream.seek(3 << 20)
        stream.write(b"x")
    assert reasons(raid.judge(), "r0") == ["holder", "md", "holder", "md"]


@pytest.mark.parametrize(
    ("label", "kind"), [("data", "xfs"), ("kvs-r1", "xfs"), ("kvs-r0", "ext4"), ("", "LVM2_member")]
)
def test_our_array_with_something_else_on_it_is_refused(machine: Machine, label: str, kind: str) -> None:
    raid = Raid(machine)
    raid.assemble(label, kind)
    assert reasons(raid.judge(), "r0") == ["holder", "md", "holder", "md"]


def test_our_array_with_a_volume_on_it_is_refused(machine: Machine) -> None:
    raid = Raid(machine)
    raid.assemble()
    machine.holder(machine.folder("md127"), "dm-0", "253:0", dm__name="vg-x", dm__uuid="LVM-1")
    assert "holder" in reasons(raid.judge(), "r0")


@pytest.mark.parametrize(
    "changes",
    [{"name": "any:kvs-r1"}, {"name": "data"}, {"level": 1}, {"level": 5}, {"disks": 3}],
    ids=str,
)
def test_an_array_of_another_name_level_or_size_is_not_ours(machine: Machine, changes: dict[str, Any]) -> None:
    verdict = Raid(machine, **changes).judge()
    assert reasons(verdict, "r0") == ["md", "md"]
    assert len(verdict.drives["r0"].tokens) == 2


def test_members_of_two_arrays_are_not_ours(machine: Machine) -> None:
    raid = Raid(machine)
    raid.member(1, uuid=UUID[::-1])
    assert reasons(raid.judge(), "r0") == ["md", "md"]


def test_an_array_with_a_missing_member_is_refused_and_never_made_anew_by_itself(machine: Machine) -> None:
    raid = Raid(machine)
    blank = nvme(machine, 2)
    verdict = judge(host_of(machine, raid.tools), entry([raid.paths[0], blank], "r0"))
    assert reasons(verdict, "r0") == ["md"]
    gone = judge(host_of(machine, raid.tools), entry([raid.paths[0], "/dev/disk/by-id/nvme-gone"], "r0"))
    assert reasons(gone, "r0") == ["md", "missing"]


def test_a_member_of_our_array_is_no_drive_of_its_own(machine: Machine) -> None:
    raid = Raid(machine, name="any:kvs-d0")
    verdict = judge(host_of(machine, raid.tools), entry(raid.paths[0]))
    assert reasons(verdict) == ["md"]


def test_a_member_with_a_partition_table_is_not_only_a_member(machine: Machine) -> None:
    raid = Raid(machine)
    with (machine.root / "nvme0n1.img").open("r+b") as stream:
        for offset, data in within(gpt(SIZE, random.Random(1), parts="backup"), SIZE):  # noqa: S311
            stream.seek(offset)
            stream.write(data)
    assert states(raid.judge()) == {"r0": "refused"}


def test_a_member_without_a_tool_that_says_so_is_found_by_its_bytes(machine: Machine) -> None:
    raid = Raid(machine)
    raid.tools.found.clear()
    assert states(raid.judge()) == {"r0": "own"}
