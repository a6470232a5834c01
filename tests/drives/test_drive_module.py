"""kvstrata_drive: all are judged before one is written, each again right before, and what is done is what was said."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import kvstrata_drive  # type: ignore[import-not-found]
import pytest
from ansible.module_utils.kvstrata_blockcontent import Signature
from ansible.module_utils.kvstrata_blockdev import Device, Host
from ansible.module_utils.kvstrata_drive_tools import ToolError
from ansible.module_utils.kvstrata_guard import Drive

from tests.drives.samples import UUID, assembled, content, device, filesystem, member, path

Machine = dict[str, Device]
D0, D1 = Drive("d0", (path(0),)), Drive("d1", (path(1),))
RAID = Drive("d0", (path(0), path(1)), array=True)
ID_CTRL = {"oacs": 0x1E, "fna": 0, "nn": 128}
ID_NS = {"flbas": 0, "lbafs": [{"ms": 0, "ds": 9, "rp": 2}, {"ms": 0, "ds": 12, "rp": 0}]}


class FakeTools:
    """Tools that note down what they are asked for, and change the machine as the real ones would."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.done: list[tuple[str, ...]] = []
        self.namespaces = "[   0]:0x1\n"
        self.before: Callable[[], None] = lambda: None

    def controller_of(self, kernel: str) -> str | None:
        return f"/dev/{kernel[:-2]}" if kernel.startswith("nvme") else None

    def identify(self, controller: str, nsid: int) -> tuple[dict[str, Any], dict[str, Any]]:
        return ID_NS, ID_CTRL

    def list_namespaces(self, controller: str) -> str:
        return self.namespaces

    def _change(self, real: str, **changes: Any) -> None:
        for name, seen in self.machine.items():
            if f"/dev/{seen.kernel}" == real:
                self.machine[name] = dataclasses.replace(seen, **changes)

    def erase_signatures(self, real: str) -> None:
        self.done.append(("erase", real))
        self._change(real, content=content(), token="after the erasure")

    def format_namespace(self, real: str, kernel: str, controller: str, nsid: int, index: int) -> None:
        self.done.append(("format", real, controller, str(nsid), str(index)))
        self._change(real, lba_bytes=4096)

    def make_array(self, name: str, devices: Sequence[str]) -> str:
        self.done.append(("array", name, *devices))
        for index in range(2):
            self.machine[path(index)] = assembled(index, content())
        return "/dev/md127"

    def assemble_array(self, name: str, uuid: str, devices: Sequence[str]) -> str:
        self.done.append(("assemble", name, uuid, *devices))
        for index in range(2):
            self.machine[path(index)] = assembled(index, filesystem())
        return "/dev/md127"

    def make_filesystem(self, real: str, fstype: str, label: str) -> None:
        self.done.append(("filesystem", real, fstype, label))
        if real == "/dev/md127":
            for index in range(2):
                self.machine[path(index)] = assembled(index, filesystem(label, fstype))
        else:
            self._change(real, content=filesystem(label, fstype))


@pytest.fixture
def machine() -> Machine:
    return {path(0): device(0), path(1): device(1)}


@pytest.fixture
def tools(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> FakeTools:
    fake = FakeTools(machine)

    def survey(drives: Sequence[Drive], host: Host) -> Machine:
        fake.before()
        return {name: machine.get(name, Device(name, "missing")) for drive in drives for name in drive.devices}

    real = {name: f"/dev/{seen.kernel}" for name, seen in machine.items()}
    numbers = {f"/dev/{seen.kernel}": seen.number for seen in machine.values()}
    monkeypatch.setattr(kvstrata_drive, "survey", survey)
    monkeypatch.setattr(kvstrata_drive.os.path, "realpath", real.__getitem__)
    monkeypatch.setattr(Host, "number", lambda self, name: numbers[name])
    return fake


def look(drives: Sequence[Drive], tools: FakeTools, tokens: dict[str, Any] | None = None) -> Any:
    return kvstrata_drive.Drives(drives, tokens or {}, Host(), tools)


def run(drives: Sequence[Drive], tools: FakeTools, tokens: dict[str, Any] | None = None, lba: str = "keep") -> Any:
    at_work = look(drives, tools, tokens)
    planned = at_work.plan(lba)
    for drive in drives:
        if planned[drive.name]:
            at_work.carry_out(drive, planned[drive.name])
    return at_work


def test_a_blank_drive_gets_its_file_system(tools: FakeTools) -> None:
    run([D0], tools)
    assert tools.done == [("filesystem", "/dev/nvme0n1", "xfs", "kvs-d0")]


def test_a_drive_of_ours_is_left_as_it_is(machine: Machine, tools: FakeTools) -> None:
    machine[path(0)] = device(0, content=filesystem())
    at_work = run([D0], tools, lba="best4096")
    assert tools.done == []
    assert at_work.verdict.drives["d0"].uuid == UUID
    assert at_work.notes == [f"{path(0)} keeps its blocks of 512 bytes: it has our file system"]


def test_one_drive_that_is_refused_keeps_all_from_being_written(machine: Machine, tools: FakeTools) -> None:
    machine[path(1)] = device(1, content=filesystem("theirs", "ext4"))
    with pytest.raises(kvstrata_drive.RefusedError, match="none was written to") as refused:
        run([D0, D1], tools)
    assert tools.done == []
    assert [(each["drive"], each["reason"]) for each in refused.value.refusals] == [("d1", "filesystem")]


def test_a_drive_that_is_missing_keeps_all_from_being_written(machine: Machine, tools: FakeTools) -> None:
    del machine[path(1)]
    with pytest.raises(kvstrata_drive.RefusedError, match="no such device"):
        run([D0, D1], tools)
    assert tools.done == []


def test_with_its_token_what_is_on_a_drive_is_erased_before_its_file_system(machine: Machine, tools: FakeTools) -> None:
    machine[path(0)] = device(0, content=filesystem("theirs", "ext4"), token="00000000000000aa")
    run([D0], tools, {"d0": "00000000000000aa"})
    assert [each[:2] for each in tools.done] == [("erase", "/dev/nvme0n1"), ("filesystem", "/dev/nvme0n1")]


def test_a_drive_that_changed_since_all_were_judged_is_not_written(machine: Machine, tools: FakeTools) -> None:
    at_work = look([D0], tools)
    planned = at_work.plan("keep")["d0"]
    machine[path(0)] = device(0, token="00000000000000bb")
    with pytest.raises(kvstrata_drive.RefusedError, match="changed while this ran"):
        at_work.carry_out(D0, planned)
    assert tools.done == []


def test_a_drive_that_was_put_to_use_since_is_refused_and_the_first_is_said_to_be_made(
    machine: Machine, tools: FakeTools
) -> None:
    at_work = look([D0, D1], tools)
    planned = at_work.plan("keep")
    at_work.carry_out(D0, planned["d0"])
    machine[path(1)] = device(1, mounts=(("nvme1n1", "/mnt"),))
    with pytest.raises(kvstrata_drive.RefusedError, match=r"made already: d0(.|\n)*mounted at /mnt"):
        at_work.carry_out(D1, planned["d1"])
    assert [each[1] for each in tools.done] == ["/dev/nvme0n1"]


def test_a_name_that_leads_to_another_device_since_is_not_written(
    tools: FakeTools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kvstrata_drive.os.path, "realpath", lambda _: "/dev/nvme1n1")
    with pytest.raises(kvstrata_drive.RefusedError, match="is another device now"):
        run([D0], tools)
    assert tools.done == []


def test_a_namespace_is_formatted_before_its_file_system_is_made(tools: FakeTools) -> None:
    run([D0], tools, lba="best4096")
    assert tools.done == [
        ("format", "/dev/nvme0n1", "/dev/nvme0", "1", "1"),
        ("filesystem", "/dev/nvme0n1", "xfs", "kvs-d0"),
    ]


def test_a_controller_with_another_namespace_keeps_all_from_being_written(tools: FakeTools) -> None:
    tools.namespaces = "[   0]:0x1\n[   1]:0x2\n"
    with pytest.raises(
        kvstrata_drive.RefusedError, match=r"drive d1: .*other namespaces \(id 2\).*nothing was written"
    ):
        run([D1, D0], tools, lba="best4096")
    assert tools.done == []


def test_a_drive_that_is_no_nvme_keeps_its_blocks_and_says_so(machine: Machine, tools: FakeTools) -> None:
    machine[path(0)] = device(0, kernel="loop3", nodes=())
    at_work = look([D0], tools)
    assert [step.kind for step in at_work.plan("best4096")["d0"]] == ["filesystem"]
    assert at_work.notes == [f"{path(0)} keeps its blocks of 512 bytes: it is no NVMe namespace"]


def test_two_blank_drives_become_an_array_with_a_file_system(tools: FakeTools) -> None:
    run([RAID], tools)
    assert tools.done == [
        ("array", "d0", "/dev/nvme0n1", "/dev/nvme1n1"),
        ("filesystem", "/dev/md127", "xfs", "kvs-d0"),
    ]


def test_an_array_of_ours_is_left_as_it_is(machine: Machine, tools: FakeTools) -> None:
    machine.update({path(index): assembled(index, filesystem()) for index in range(2)})
    at_work = run([RAID], tools)
    assert tools.done == []
    assert at_work.verdict.drives["d0"].source == "/dev/md127"


def test_an_array_that_is_not_running_is_assembled_and_not_made_again(machine: Machine, tools: FakeTools) -> None:
    machine.update({path(index): member(index) for index in range(2)})
    at_work = run([RAID], tools)
    assert [each[0] for each in tools.done] == ["assemble"]
    assert at_work.verdict.drives["d0"].uuid == UUID


def test_an_array_whose_making_was_interrupted_gets_the_file_system_it_lacks(
    machine: Machine, tools: FakeTools
) -> None:
    machine.update({path(index): assembled(index, content()) for index in range(2)})
    run([RAID], tools)
    assert [each[0] for each in tools.done] == ["filesystem"]


def test_an_array_with_a_blank_drive_in_it_is_refused_and_not_made_again(machine: Machine, tools: FakeTools) -> None:
    machine[path(0)] = member(0)
    with pytest.raises(kvstrata_drive.RefusedError):
        run([RAID], tools)
    assert tools.done == []


def test_an_array_that_carries_somebodys_file_system_is_refused(machine: Machine, tools: FakeTools) -> None:
    theirs = content(Signature("ext4", 0, "theirs", UUID))
    machine.update({path(index): assembled(index, theirs) for index in range(2)})
    with pytest.raises(kvstrata_drive.RefusedError):
        run([RAID], tools)
    assert tools.done == []


def test_a_tool_that_did_not_do_its_work_is_found_out(tools: FakeTools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "make_filesystem", lambda *_: None)
    with pytest.raises(ToolError, match="drive d0 was made, and is blank without its file system"):
        run([D0], tools)


def test_two_runs_at_once_do_not_meet(tmp_path: Path) -> None:
    lock = str(tmp_path / "lock")
    with kvstrata_drive.alone(lock), pytest.raises(kvstrata_drive.RefusedError, match="another run is at work"):
        kvstrata_drive.alone(lock).__enter__()
    with kvstrata_drive.alone(lock):
        pass


def test_what_is_yet_to_be_made_has_neither_uuid_nor_source_in_check_mode(tools: FakeTools) -> None:
    at_work = look([D0, D1], tools)
    planned = at_work.plan("keep")
    seen = kvstrata_drive.described(at_work, {**planned, "d1": []}, done=False)
    assert (seen["d0"]["uuid"], seen["d0"]["source"], seen["d1"]["source"]) == (None, None, path(1))
