"""Who uses a drive: each reason on a machine of files, with the use beside it that is no reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvstrata.lab.guardfuzz.machine import Machine
from tests.guard.drives import SIZE, entry, judge, nvme, reasons

ROOT = "1 0 0:1 / / rw - overlay overlay rw"
OURS = "nvme0n1"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.process(1, [ROOT], "host")
    nvme(made)
    return made


def judged(machine: Machine) -> list[str]:
    return reasons(judge(machine.host(), entry("/dev/disk/by-id/nvme-eui.01")))


def mount(number: str, point: str, source: str = "/dev/x", fstype: str = "ext4", root: str = "/") -> str:
    return f"30 1 {number} {root} {point} rw,relatime shared:1 - {fstype} {source} rw"


# --- mounts ---


def test_mounts_of_other_devices_are_no_reason(machine: Machine) -> None:
    machine.process(1, [ROOT, mount("259:2", "/data"), mount("8:1", "/boot")], "host")
    assert judged(machine) == []


def test_a_mounted_drive_is_refused(machine: Machine) -> None:
    machine.process(1, [ROOT, mount("259:1", "/data")], "host")
    assert judged(machine) == ["mounted"]


def test_a_mount_in_another_namespace_is_found(machine: Machine) -> None:
    machine.process(4711, [ROOT, mount("259:1", "/srv")], "container")
    assert judged(machine) == ["mounted"]


def test_a_mount_in_the_namespace_of_a_thread_is_found(machine: Machine) -> None:
    machine.process(4711, [ROOT], "host")
    machine.process(4711, [ROOT, mount("259:1", "/srv")], "thread", task=4712)
    assert judged(machine) == ["mounted"]


def test_a_point_with_a_blank_in_it_is_said_as_it_is(machine: Machine) -> None:
    machine.process(1, [ROOT, mount("259:1", r"/my\040data")], "host")
    (refusal,) = judge(machine.host(), entry("/dev/disk/by-id/nvme-eui.01")).refusals
    assert refusal.seen == "nvme0n1 is mounted at /my data"


def test_a_drive_mounted_in_many_places_is_refused_once(machine: Machine) -> None:
    machine.process(1, [ROOT, *(mount("259:1", f"/c{index}") for index in range(7))], "host")
    (refusal,) = judge(machine.host(), entry("/dev/disk/by-id/nvme-eui.01")).refusals
    assert refusal.seen == "nvme0n1 is mounted at /c0, /c1, /c2, /c3, /c4 and 2 more places"


def test_a_mount_without_a_device_number_is_found_by_its_source(machine: Machine) -> None:
    machine.process(1, [ROOT, mount("0:44", "/data", "/dev/nvme0n1", "btrfs")], "host")
    assert judged(machine) == ["mounted"]


def test_a_pool_is_found_beside_a_mount_of_another_file_system(machine: Machine) -> None:
    folder = machine.root / "sys/fs/btrfs/1234/devices"
    folder.mkdir(parents=True)
    (folder / "nvme0n1").symlink_to(machine.folder("nvme0n1"))
    machine.process(1, [ROOT, mount("259:1", "/data", fstype="xfs")], "host")
    (refusal,) = judge(machine.host(), entry("/dev/disk/by-id/nvme-eui.01")).refusals
    assert refusal.seen == "nvme0n1 is mounted at (a btrfs file system of several devices), /data"


def test_a_device_of_a_btrfs_file_system_that_is_mounted_by_another_is_found(machine: Machine) -> None:
    nvme(machine, 1)
    for index in (0, 1):
        link = machine.root / f"sys/fs/btrfs/1234/devices/nvme{index}n1"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(machine.folder(f"nvme{index}n1"))
    machine.process(1, [ROOT, mount("0:44", "/data", "/dev/nvme1n1", "btrfs")], "host")
    assert judged(machine) == ["mounted"]
    # Even if no namespace shows the mount.
    machine.process(1, [ROOT], "host")
    assert judged(machine) == ["mounted"]


def test_a_source_of_the_same_name_in_a_container_is_no_reason_where_the_device_is_another(machine: Machine) -> None:
    machine.process(4711, [ROOT, mount("7:3", "/srv", "/dev/nvme0n1", "xfs")], "container")
    assert judged(machine) == []


# --- partitions and holders ---


def test_a_partition_of_the_kernel_is_content_and_a_token_is_offered(machine: Machine) -> None:
    machine.partition(OURS, 1, "259:9", 1 << 20, 1 << 20)
    (refusal,) = judge(machine.host(), entry("/dev/disk/by-id/nvme-eui.01")).refusals
    assert refusal.reason == "partition"
    assert refusal.token


def test_a_mounted_partition_is_a_child_in_use(machine: Machine) -> None:
    machine.partition(OURS, 1, "259:9", 1 << 20, 1 << 20)
    machine.process(1, [ROOT, mount("259:9", "/data")], "host")
    verdict = judge(machine.host(), entry("/dev/disk/by-id/nvme-eui.01"))
    assert reasons(verdict) == ["child_in_use", "partition"]
    assert {refusal.token for refusal in verdict.refusals} == {None}


@pytest.mark.parametrize("point", ["/", "/boot", "/boot/efi"])
def test_a_drive_below_the_system_is_the_system_disk(machine: Machine, point: str) -> None:
    machine.partition(OURS, 1, "259:9", 1 << 20, 1 << 20)
    machine.process(1, [mount("259:9", point)], "host")
    assert judged(machine) == ["system_disk", "child_in_use", "partition"]


def test_the_root_of_a_container_is_not_the_system(machine: Machine) -> None:
    machine.partition(OURS, 1, "259:9", 1 << 20, 1 << 20)
    machine.process(4711, [mount("259:9", "/")], "container")
    assert judged(machine) == ["child_in_use", "partition"]


def lvm_on_luks_on_md(machine: Machine) -> None:
    """Partition, RAID, encryption, logical volume: as a server's system often is."""
    part = machine.partition(OURS, 2, "259:10", 2 << 20, 4 << 20)
    raid = machine.holder(part, "md0", "9:0", md__level="raid1")
    crypt = machine.holder(raid, "dm-0", "253:0", dm__name="crypt", dm__uuid="CRYPT-LUKS2-1")
    machine.holder(crypt, "dm-1", "253:1", dm__name="vg-root", dm__uuid="LVM-1")
    machine.holder(crypt, "dm-2", "253:2", dm__name="vg-swap", dm__uuid="LVM-2")


def test_a_holder_is_refused_however_far_up(machine: Machine) -> None:
    lvm_on_luks_on_md(machine)
    verdict = judge(machine.host(), entry("/dev/disk/by-id/nvme-eui.01"))
    assert reasons(verdict) == ["holder", "partition"]
    (held,) = [refusal.seen for refusal in verdict.refusals if refusal.reason == "holder"]
    for name in ("md0 (RAID raid1)", "dm-0 (crypt CRYPT-LUKS2-1)", "dm-1 (vg-root LVM-1)", "dm-2 (vg-swap LVM-2)"):
        assert name in held


def test_the_root_of_the_system_is_found_through_volumes_encryption_and_raid(machine: Machine) -> None:
    lvm_on_luks_on_md(machine)
    machine.process(1, [mount("253:1", "/", "/dev/mapper/vg-root")], "host")
    verdict = judge(machine.host(), entry("/dev/disk/by-id/nvme-eui.01"))
    assert reasons(verdict) == ["system_disk", "child_in_use", "holder", "partition"]
    assert verdict.refusals[0].seen == "/ is on dm-1"


def test_swap_space_of_the_system_is_found_through_volumes(machine: Machine) -> None:
    lvm_on_luks_on_md(machine)
    machine.swaps("/dev/dm-2")
    assert judged(machine) == ["system_disk", "child_in_use", "holder", "partition"]


def test_a_holder_of_another_drive_is_no_reason(machine: Machine) -> None:
    nvme(machine, 1)
    machine.holder(machine.folder("nvme1n1"), "dm-0", "253:0", dm__name="vg-x", dm__uuid="LVM-3")
    machine.process(1, [ROOT, mount("253:0", "/")], "host")
    assert judged(machine) == []


def test_a_loop_device_over_the_drive_is_a_holder_and_its_mounts_count(machine: Machine) -> None:
    machine.device("loop0", "7:0", SIZE, loop__backing_file="/dev/nvme0n1")
    assert judged(machine) == ["holder"]
    machine.process(1, [ROOT, mount("7:0", "/mnt")], "host")
    assert judged(machine) == ["child_in_use", "holder"]


def test_a_loop_device_over_a_file_is_no_holder(machine: Machine) -> None:
    machine.device("loop0", "7:0", SIZE, loop__backing_file="/srv/nvme0n1")
    assert judged(machine) == []


# --- swap ---


def test_active_swap_space_is_refused(machine: Machine) -> None:
    machine.swaps("/dev/nvme0n1")
    assert judged(machine) == ["swap_in_use"]


def test_swap_space_on_another_drive_or_in_a_file_is_no_reason(machine: Machine) -> None:
    nvme(machine, 1)
    machine.swaps("/dev/nvme1n1", "/swapfile", "/dev/zram0")
    assert judged(machine) == []


def test_swap_space_is_found_by_name_where_its_path_leads_nowhere(machine: Machine) -> None:
    (machine.root / "dev" / "nvme0n1").unlink()
    machine.swaps("/dev/nvme0n1")
    assert judged(machine) == ["swap_in_use"]


# --- open files and exports ---


@pytest.mark.parametrize("flags", ["0100002", "0100001", "02504002"])
def test_a_drive_that_somebody_has_open_for_writing_is_busy(machine: Machine, flags: str) -> None:
    machine.process(4711, [ROOT], "host")
    machine.opened(4711, "/dev/nvme0n1", flags)
    (refusal,) = judge(machine.host(), entry("/dev/disk/by-id/nvme-eui.01")).refusals
    assert refusal.reason == "busy"
    assert refusal.seen == "qemu (process 4711) has nvme0n1 open for writing"


def test_a_drive_that_somebody_only_reads_is_not_busy(machine: Machine) -> None:
    machine.process(4711, [ROOT], "host")
    machine.opened(4711, "/dev/nvme0n1", "0100000")
    assert judged(machine) == []


def test_a_namespace_of_the_nvme_target_is_busy(machine: Machine) -> None:
    path = machine.root / "sys/kernel/config/nvmet/subsystems/nqn.x/namespaces/1/device_path"
    path.parent.mkdir(parents=True)
    path.write_text("/dev/nvme0n1\n")
    (refusal,) = judge(machine.host(), entry("/dev/disk/by-id/nvme-eui.01")).refusals
    assert (refusal.reason, refusal.seen) == ("busy", "the NVMe target nqn.x exports nvme0n1")
    path.write_text("/dev/nvme9n1\n")
    assert judged(machine) == []


def test_a_disk_of_the_scsi_target_is_busy(machine: Machine) -> None:
    path = machine.root / "sys/kernel/config/target/core/fileio_0/disk1/udev_path"
    path.parent.mkdir(parents=True)
    path.write_text("/dev/nvme0n1\n")
    (refusal,) = judge(machine.host(), entry("/dev/disk/by-id/nvme-eui.01")).refusals
    assert (refusal.reason, refusal.seen) == ("busy", "the SCSI target fileio_0/disk1 exports nvme0n1")


def test_a_file_that_ends_while_it_is_looked_at_is_no_device(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(path: str) -> str:
        raise FileNotFoundError(path)

    host = machine.host()
    monkeypatch.setattr("os.path.realpath", gone)
    assert host.number("/dev/null") == ""
