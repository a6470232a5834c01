"""The commands that change a drive: which they are, and what is waited for. None is run here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible.module_utils import kvstrata_drive_tools
from ansible.module_utils.kvstrata_drive_tools import ToolError, Tools, claimed, run_command

Commands = list[tuple[str, ...]]


class Recorder:
    """Notes down commands and answers them; `answers` by the first word."""

    def __init__(self, **answers: tuple[int, str, str]) -> None:
        self.commands: Commands = []
        self.answers = answers

    def __call__(self, argv: Sequence[str]) -> tuple[int, str, str]:
        self.commands.append(tuple(argv))
        return self.answers.get(argv[0], (0, "", ""))


@pytest.fixture(autouse=True)
def no_udev(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tools, "settle", lambda self: None)


def sysfs(root: Path, *, block_bytes: int = 4096, above: str = "nvme3") -> str:
    """A namespace nvme0n1 below the controller nvme3, directly or by way of a subsystem."""
    home = root / "devices" / above
    home.mkdir(parents=True)
    if above.startswith("nvme-subsys"):
        (home / "nvme3").mkdir()
        (home / "nvme0n1").mkdir()
    folder = root / "block" / "nvme0n1"
    (folder / "queue").mkdir(parents=True)
    (folder / "queue" / "logical_block_size").write_text(f"{block_bytes}\n")
    (folder / "device").symlink_to(home)
    return str(root)


@pytest.mark.parametrize("above", ["nvme3", "nvme-subsys0"])
def test_the_controller_is_found_by_sysfs_and_not_by_the_namespaces_number(tmp_path: Path, above: str) -> None:
    assert Tools(Recorder(), sysfs(tmp_path, above=above)).controller_of("nvme0n1") == "/dev/nvme3"


def test_what_is_no_nvme_namespace_has_no_controller(tmp_path: Path) -> None:
    assert Tools(Recorder(), sysfs(tmp_path)).controller_of("loop0") is None


def test_a_namespace_is_formatted_while_it_is_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path / "device"
    device.touch()
    held: list[bool] = []

    def run(argv: Sequence[str]) -> tuple[int, str, str]:
        held.append(any(link.exists() and link.samefile(device) for link in Path("/proc/self/fd").iterdir()))
        recorder(argv)
        return 0, "", ""

    recorder = Recorder()
    Tools(run, sysfs(tmp_path / "sys")).format_namespace(str(device), "nvme0n1", "/dev/nvme3", 1, 2)
    assert recorder.commands == [
        ("nvme", "format", "/dev/nvme3", "--namespace-id=1", "--lbaf=2", "--ses=0", "--force"),
        ("nvme", "ns-rescan", "/dev/nvme3"),
    ]
    assert held == [True, False]


def test_a_kernel_that_does_not_see_the_new_block_size_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kvstrata_drive_tools, "SETTLE_S", 0)
    device = tmp_path / "device"
    device.touch()
    tools = Tools(Recorder(), sysfs(tmp_path / "sys", block_bytes=512))
    with pytest.raises(ToolError, match="nvme0n1 has blocks of 512 bytes"):
        tools.format_namespace(str(device), "nvme0n1", "/dev/nvme3", 1, 2)


def test_a_device_that_cannot_be_claimed_is_not_formatted(tmp_path: Path) -> None:
    recorder = Recorder()
    with pytest.raises(ToolError, match="cannot be claimed: No such file"):
        Tools(recorder, sysfs(tmp_path)).format_namespace(str(tmp_path / "gone"), "nvme0n1", "/dev/nvme3", 1, 2)
    assert recorder.commands == []


def test_a_claim_opens_for_reading_and_exclusively(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags: list[int] = []
    real = os.open

    def spy(path: str, wanted: int) -> int:
        flags.append(wanted)
        return real(path, os.O_RDONLY)

    (tmp_path / "device").touch()
    monkeypatch.setattr(kvstrata_drive_tools.os, "open", spy)
    with claimed(str(tmp_path / "device")):
        pass
    assert flags[0] & os.O_ACCMODE == os.O_RDONLY
    assert flags[0] & os.O_EXCL


@pytest.mark.parametrize(("fstype", "command"), [("xfs", "mkfs.xfs"), ("ext4", "mkfs.ext4")])
def test_a_file_system_is_made_without_force(fstype: str, command: str) -> None:
    recorder = Recorder()
    Tools(recorder).make_filesystem("/dev/x", fstype, "kvs-d0")
    made = recorder.commands[-1]
    assert (made[0], made[-1]) == (command, "/dev/x")
    assert "kvs-d0" in made
    assert not {"-f", "-F", "--force"} & set(made)


@pytest.mark.parametrize("fstype", ["xfs", "ext4"])
def test_a_file_system_is_not_made_on_what_carries_something(fstype: str) -> None:
    recorder = Recorder(wipefs=(0, "ext4\n", ""))
    with pytest.raises(ToolError, match=r"to be blank .* carries: ext4"):
        Tools(recorder).make_filesystem("/dev/x", fstype, "kvs-d0")
    assert [command[0] for command in recorder.commands] == ["wipefs"]


def test_an_array_is_made_for_any_host_and_without_force() -> None:
    recorder = Recorder()
    Tools(recorder).make_array("d0", ["/dev/a", "/dev/b"])
    (made,) = recorder.commands
    assert {"--create", "--name=kvs-d0", "--homehost=any", "--level=0", "--raid-devices=2"} <= set(made)
    assert made[-2:] == ("/dev/a", "/dev/b")
    assert not {"--run", "--force"} & set(made)


def test_an_array_is_assembled_by_its_uuid() -> None:
    recorder = Recorder()
    Tools(recorder).assemble_array("d0", "aa:bb", ["/dev/a", "/dev/b"])
    (made,) = recorder.commands
    assert {"--assemble", "/dev/md/kvs-d0", "--uuid=aa:bb"} <= set(made)
    assert not {"--run", "--force"} & set(made)


def test_a_command_that_fails_is_told_with_what_it_said() -> None:
    with pytest.raises(ToolError, match="`wipefs --all --quiet /dev/x` ended with 1: busy"):
        Tools(Recorder(wipefs=(1, "", "busy\n"))).erase_signatures("/dev/x")


def test_a_drive_that_tells_no_allocated_namespaces_is_asked_for_the_attached_ones() -> None:
    asked: Commands = []

    def run(argv: Sequence[str]) -> tuple[int, str, str]:
        asked.append(tuple(argv))
        return (1, "", "not supported") if "--all" in argv else (0, "[   0]:0x1\n", "")

    assert Tools(run).list_namespaces("/dev/nvme0") == "[   0]:0x1\n"
    assert len(asked) == 2


def test_a_command_that_asks_is_told_nothing() -> None:
    status, out, _ = run_command(["sh", "-c", "read answer || echo nobody; exit 3"])
    assert (status, out) == (3, "nobody\n")


def test_a_command_that_is_not_there_says_so() -> None:
    status, _, error = run_command(["/no/such/command"])
    assert status == 127
    assert "No such file" in error
