"""Which device it is: each reason on a machine of files, with a drive beside it that is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kvstrata.lab.guardfuzz.machine import Machine
from tests.guard.drives import SIZE, entry, judge, nvme, reasons, states


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def judged(machine: Machine, device: Any, **fields: Any) -> list[str]:
    return reasons(judge(machine.host(), entry(device, **fields)))


def test_a_blank_drive_is_taken_and_described(machine: Machine) -> None:
    verdict = judge(machine.host(), entry(nvme(machine)))
    assert verdict.as_dict()["refusals"] == []
    assert verdict.as_dict()["drives"]["d0"] == {
        "name": "d0",
        "state": "blank",
        "fstype": "",
        "uuid": "",
        "source": "/dev/disk/by-id/nvme-eui.01",
        "mount": "/var/lib/kvstrata/drives/d0",
        "mounted": False,
        "array": "",
        "wipe": (),
        "tokens": (),
        "devices": (
            {
                "path": "/dev/disk/by-id/nvme-eui.01",
                "kernel": "nvme0n1",
                "serial": "S0",
                "model": "KIOXIA KCM71RUG3T84",
                "wwid": "eui.01",
                "nsid": 1,
                "size": SIZE,
                "lba_bytes": 512,
                "numa_node": 0,
                "siblings": (),
            },
        ),
    }


def test_two_blank_drives_are_taken(machine: Machine) -> None:
    verdict = judge(machine.host(), entry(nvme(machine)), entry(nvme(machine, 1), "d1"))
    assert states(verdict) == {"d0": "blank", "d1": "blank"}


def test_a_name_that_leads_nowhere_is_missing(machine: Machine) -> None:
    assert judged(machine, "/dev/disk/by-id/nvme-none") == ["missing"]
    assert judged(machine, machine.by_id("nvme-dangling", "/nowhere")) == ["missing"]


def test_a_file_is_no_block_device(machine: Machine) -> None:
    assert judged(machine, machine.by_id("nvme-file", "/etc/hostname")) == ["not_block"]
    assert judged(machine, machine.by_id("nvme-char", "/dev/null")) == ["not_block"]


def test_a_kernel_name_is_refused_though_the_drive_is_blank(machine: Machine) -> None:
    nvme(machine)
    assert judged(machine, "/dev/nvme0n1") == ["kernel_name"]


def test_a_partition_is_no_whole_drive(machine: Machine) -> None:
    nvme(machine)
    image = machine.root / "part.img"
    with image.open("wb") as stream:
        stream.truncate(SIZE // 2)
    machine.partition("nvme0n1", 1, "259:9", SIZE // 2, SIZE // 2)
    machine.stand_ins[str(image)] = "259:9"
    assert judged(machine, machine.by_id("nvme-eui.01-part1", str(image))) == ["not_whole"]


@pytest.mark.parametrize("kernel", ["dm-0", "md127", "zram0", "ram3", "nbd0", "rbd0", "zd16", "sr0", "bcache0"])
def test_what_is_made_of_other_devices_or_of_memory_is_no_drive(machine: Machine, kernel: str) -> None:
    image = machine.root / "other.img"
    with image.open("wb") as stream:
        stream.truncate(SIZE)
    machine.device(kernel, "253:0", SIZE, target=str(image))
    assert judged(machine, machine.by_id(f"x-{kernel}", str(image))) == ["not_a_drive"]


def test_a_drive_by_its_name_that_has_slaves_is_made_of_others(machine: Machine) -> None:
    path = nvme(machine)
    (machine.folder("nvme0n1") / "slaves" / "sda").mkdir()
    assert judged(machine, path) == ["not_a_drive"]


@pytest.mark.parametrize("kernel", ["sda", "vdb", "xvdc", "loop7", "sdaa"])
def test_other_drives_are_taken_too(machine: Machine, kernel: str) -> None:
    image = machine.root / "other.img"
    with image.open("wb") as stream:
        stream.truncate(SIZE)
    machine.device(kernel, "8:0", SIZE, target=str(image))
    assert judged(machine, machine.by_id("wwn-0x5", str(image))) == []


@pytest.mark.parametrize("transport", ["tcp", "rdma", "fc", "loop"])
def test_nvme_over_fabrics_is_refused(machine: Machine, transport: str) -> None:
    path = nvme(machine)
    machine.attributes(machine.folder("nvme0n1").parent, transport=transport)
    assert judged(machine, path) == ["not_local"]


@pytest.mark.parametrize("home", ["host3/session1/target3:0:0/3:0:0:0", "host4/rport-4:0-1/target4:0:0/4:0:0:0"])
def test_scsi_disks_over_a_network_are_refused(machine: Machine, home: str) -> None:
    image = machine.root / "other.img"
    with image.open("wb") as stream:
        stream.truncate(SIZE)
    folder = machine.device("sda", "8:0", SIZE, home=f"{home}/block", target=str(image))
    (folder / "device").symlink_to(folder.parents[1])
    assert judged(machine, machine.by_id("wwn-0x5", str(image))) == ["not_local"]


# --- serial and size ---


def test_the_expected_serial_number_and_size_are_taken(machine: Machine) -> None:
    path = nvme(machine)
    assert judged(machine, path, serial="S0") == []
    machine.attributes(machine.folder("nvme0n1"), size=str(SIZE // 512))
    assert judged(machine, path, serial="S0", size_gib=0) == []


@pytest.mark.parametrize("serial", ["S1", "s0", "S00", "0"])
def test_another_serial_number_is_refused(machine: Machine, serial: str) -> None:
    verdict = judge(machine.host(), entry(nvme(machine), serial=serial))
    (refusal,) = verdict.refusals
    assert refusal.reason == "other_serial"
    assert refusal.seen == f"its serial number is S0, expected is {serial}"
    assert refusal.token is None


def test_the_blanks_around_a_serial_number_do_not_count(machine: Machine) -> None:
    path = nvme(machine)
    machine.attributes(machine.folder("nvme0n1").parent, serial="S4X0NE0M            ")
    assert judged(machine, path, serial="S4X0NE0M") == []


def test_an_expected_serial_number_that_cannot_be_read_is_refused(machine: Machine) -> None:
    path = nvme(machine)
    machine.attributes(machine.folder("nvme0n1").parent, serial="")
    assert judged(machine, path, serial="S0") == ["no_serial"]
    assert judged(machine, path) == []


def test_a_scsi_disk_has_its_serial_number_on_page_80(machine: Machine) -> None:
    image = machine.root / "other.img"
    with image.open("wb") as stream:
        stream.truncate(SIZE)
    folder = machine.device("sda", "8:0", SIZE, target=str(image))
    (folder / "device").mkdir()
    (folder / "device" / "vpd_pg80").write_bytes(b"\0\x80\0\x08  Z1X2Y3")
    path = machine.by_id("wwn-0x5", str(image))
    assert judged(machine, path, serial="Z1X2Y3") == []
    assert judged(machine, path, serial="Z1X2Y4") == ["other_serial"]


def test_a_smaller_drive_is_refused(machine: Machine) -> None:
    verdict = judge(machine.host(), entry(nvme(machine), size_gib=1))
    (refusal,) = verdict.refusals
    assert (refusal.reason, refusal.seen) == ("smaller", "it has 0.0 GiB, expected are at least 1")


def test_a_drive_of_exactly_the_size_is_taken(machine: Machine) -> None:
    path = nvme(machine)
    image = machine.root / "nvme0n1.img"
    with image.open("wb") as stream:
        stream.truncate(1 << 30)
    machine.attributes(machine.folder("nvme0n1"), size=str((1 << 30) // 512))
    assert judged(machine, path, size_gib=1) == []
    machine.attributes(machine.folder("nvme0n1"), size=str((1 << 30) // 512 - 1))
    with image.open("r+b") as stream:
        stream.truncate((1 << 30) - 512)
    assert judged(machine, path, size_gib=1) == ["smaller"]


def test_each_device_of_an_array_has_its_own_serial_number(machine: Machine) -> None:
    pair = [nvme(machine), nvme(machine, 1)]
    assert judged(machine, pair, serials=["S0", "S1"]) == []
    assert judged(machine, pair, serials=["S1", "S0"]) == ["other_serial", "other_serial"]
    assert judged(machine, pair, serials=["S0", "S2"]) == ["other_serial"]


# --- read-only, unreadable ---


def test_a_read_only_drive_is_refused(machine: Machine) -> None:
    path = nvme(machine)
    machine.attributes(machine.folder("nvme0n1"), ro="1")
    assert judged(machine, path) == ["read_only"]


@pytest.mark.parametrize(
    ("tool", "answer"),
    [
        ("wipefs", (1, "wipefs: error: cannot open")),
        ("wipefs", (0, "no JSON at all")),
        ("blkid", (4, "blkid: error: usage")),
        ("blkid", (127, "not found")),
    ],
)
def test_a_tool_that_fails_is_never_read_as_nothing_found(machine: Machine, tool: str, answer: tuple[int, str]) -> None:
    path = nvme(machine)
    machine.answers[tool] = answer
    assert judged(machine, path) == ["unreadable"]


def test_a_tool_that_is_not_there_is_never_read_as_nothing_found(machine: Machine) -> None:
    path = nvme(machine)
    host = machine.host(real_tools=True)

    def run(argv: list[str]) -> tuple[int, str]:
        raise FileNotFoundError(2, "No such file or directory", argv[0])

    verdict = judge(type(host)(**{**vars(host), "run": run}), entry(path))
    assert reasons(verdict) == ["unreadable"]


def test_a_size_that_sysfs_and_the_device_do_not_agree_on_is_refused(machine: Machine) -> None:
    path = nvme(machine)
    machine.attributes(machine.folder("nvme0n1"), size=str(SIZE // 512 + 8))
    assert judged(machine, path) == ["unreadable"]


def test_a_device_without_a_byte_is_refused(machine: Machine) -> None:
    path = nvme(machine)
    with (machine.root / "nvme0n1.img").open("wb"):
        pass
    machine.attributes(machine.folder("nvme0n1"), size="0")
    assert judged(machine, path) == ["unreadable"]


# --- several names and paths ---


def test_two_entries_that_lead_to_one_device_are_both_refused(machine: Machine) -> None:
    path = nvme(machine)
    other = machine.by_id("nvme-KIOXIA_S0", str(machine.root / "nvme0n1.img"))
    verdict = judge(machine.host(), entry(path), entry(other, "d1"))
    assert (reasons(verdict, "d0"), reasons(verdict, "d1")) == (["two_names"], ["two_names"])


def test_an_array_of_one_device_by_two_names_is_refused(machine: Machine) -> None:
    path = nvme(machine)
    other = machine.by_id("nvme-KIOXIA_S0", str(machine.root / "nvme0n1.img"))
    assert judged(machine, [path, other]) == ["two_names", "two_names"]


def test_two_devices_with_one_wwid_are_two_paths_to_one_namespace(machine: Machine) -> None:
    first, second = nvme(machine, wwid="eui.7"), nvme(machine, 1, wwid="eui.7")
    verdict = judge(machine.host(), entry(first), entry(second, "d1"))
    assert reasons(verdict) == reasons(verdict, "d1") == ["multipath_leg", "two_names"]
    assert judged(machine, first) == ["multipath_leg"]


def test_two_namespaces_of_one_controller_are_refused(machine: Machine) -> None:
    home = "pci0000:00/0000:01:00.0/nvme/nvme0"
    first, second = nvme(machine, home=home), nvme(machine, namespace=2, home=home)
    verdict = judge(machine.host(), entry(first), entry(second, "d1"))
    assert reasons(verdict) == reasons(verdict, "d1") == ["shared_controller"]
    alone = judge(machine.host(), entry(first))
    assert states(alone) == {"d0": "blank"}
    assert alone.drives["d0"].devices[0]["siblings"] == ("nvme0n2",)


def subsystem(machine: Machine, *controllers: str) -> str:
    """A namespace as a kernel with NVMe multipath shows it: below its subsystem, one hidden device for each path."""
    home = "virtual/nvme-subsystem/nvme-subsys0"
    path = nvme(machine, home=home)
    folder = machine.folder("nvme0n1").parent
    (folder / "transport").unlink()
    for controller in controllers:
        real = machine.root / "sys/devices" / "pci0000:00" / controller
        machine.attributes(real, transport="pcie", numa_node="1")
        (folder / controller).symlink_to(real)
    return path


def test_a_namespace_below_a_subsystem_with_one_controller_is_taken(machine: Machine) -> None:
    verdict = judge(machine.host(), entry(subsystem(machine, "nvme0"), serial="S0"))
    assert states(verdict) == {"d0": "blank"}
    assert verdict.drives["d0"].devices[0]["numa_node"] == 1


def test_a_subsystem_with_two_controllers_is_multipath(machine: Machine) -> None:
    assert judged(machine, subsystem(machine, "nvme0", "nvme1")) == ["multipath_leg"]


def test_one_path_over_a_network_is_enough_to_be_not_local(machine: Machine) -> None:
    path = subsystem(machine, "nvme0", "nvme1")
    machine.attributes(machine.root / "sys/devices/pci0000:00/nvme1", transport="tcp")
    assert judged(machine, path) == ["not_local", "multipath_leg"]


def test_the_hidden_device_of_a_path_is_multipath(machine: Machine) -> None:
    image = machine.root / "path.img"
    with image.open("wb") as stream:
        stream.truncate(SIZE)
    machine.device("nvme0c1n1", "259:3", SIZE, target=str(image))
    assert judged(machine, machine.by_id("nvme-x", str(image))) == ["multipath_leg"]


def test_a_disk_held_by_dm_multipath_is_one_of_its_paths(machine: Machine) -> None:
    path = nvme(machine)
    machine.holder(machine.folder("nvme0n1"), "dm-0", "253:0", dm__name="mpatha", dm__uuid="mpath-3600")
    assert judged(machine, path) == ["multipath_leg", "holder"]


def test_what_udev_knows_as_a_path_is_refused(machine: Machine) -> None:
    path = nvme(machine)
    (machine.root / "udev" / "b259:1").write_text("E:DM_MULTIPATH_DEVICE_PATH=1\nE:ID_FS_TYPE=mpath_member\n")
    assert judged(machine, path) == ["multipath_leg", "multipath_member"]
    (machine.root / "udev" / "b259:1").write_text("E:DM_MULTIPATH_DEVICE_PATH=0\nE:ID_FS_TYPE=\n")
    assert judged(machine, path) == []
