"""The guard on real block devices: real tables, file systems, mounts and claims. Looking never writes a byte."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from kvstrata.lab.guardfuzz.loops import command
from kvstrata.lab.guardfuzz.samples import SAMPLES, Sample, gpt, within
from tests.guard.drives import entry, reasons, states
from tests.guard.real import Bench, needs

MIB = 1 << 20


# --- blank ---


def test_blank_drives_are_taken(bench: Bench) -> None:
    bench.attach(0)
    bench.attach(1)
    assert states(bench.judge(*bench.entries(2))) == {"d0": "blank", "d1": "blank"}


def test_a_blank_drive_of_4096_byte_blocks_is_taken(bench: Bench) -> None:
    bench.attach(sector=4096)
    verdict = bench.judge()
    assert states(verdict) == {"d0": "blank"}
    assert verdict.drives["d0"].devices[0]["lba_bytes"] == 4096


def test_a_read_only_drive_is_refused(bench: Bench) -> None:
    bench.attach(read_only=True)
    assert reasons(bench.judge()) == ["read_only"]


# --- what it holds ---


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_what_somebody_left_is_refused_for_its_reason_and_goes_with_its_token_alone(
    bench: Bench, sample: Sample
) -> None:
    loop = bench.loops[0]
    loop.write(within(sample.make(loop.size, random.Random(sample.name)), loop.size))  # noqa: S311 - the same each time
    bench.attach()
    refusals = bench.judge().refusals
    assert refusals
    if sample.reason:
        assert sample.reason in [refusal.reason for refusal in refusals]
    (token,) = {refusal.token for refusal in refusals}
    assert states(bench.judge(tokens={"d0": token})) == {"d0": "wipe"}
    assert states(bench.judge(tokens={"d0": "0" * 16, "d1": token})) == {"d0": "refused"}


MADE = {
    "ext4": (["mkfs.ext4", "-q", "-L", "data"], "filesystem"),
    "XFS": (["mkfs.xfs", "-q", "-m", "crc=1", "-L", "data"], "filesystem"),
    "btrfs": (["mkfs.btrfs", "-q", "--mixed"], "filesystem"),
    "FAT": (["mkfs.vfat"], "filesystem"),
    "swap": (["mkswap", "-q"], "swap_signature"),
    "gpt": (["sgdisk", "--clear"], "partition_table"),
    "gpt with a partition": (["sgdisk", "--clear", "--new=1:2048:+8M"], "partition"),
}


def big_enough(bench: Bench) -> None:
    """XFS wants 300 MiB."""
    bench.loops[0].size = 320 * MIB
    bench.loops[0].blank()


@pytest.mark.parametrize("name", MADE)
def test_what_a_tool_made_is_refused(bench: Bench, name: str) -> None:
    argv, reason = MADE[name]
    needs(argv[0])
    big_enough(bench)
    loop = bench.attach()
    command([*argv, loop.device])
    verdict = bench.judge()
    assert reason in reasons(verdict)
    (token,) = {refusal.token for refusal in verdict.refusals}
    assert states(bench.judge(tokens={"d0": token})) == {"d0": "wipe"}


@pytest.mark.parametrize("partitions", [False, True], ids=["unknown to the kernel", "known to the kernel"])
def test_what_is_in_a_partition_is_said(bench: Bench, partitions: bool) -> None:
    needs("sfdisk")
    big_enough(bench)
    loop = bench.attach()
    command(["sfdisk", "--quiet", "--no-reread", loop.device], stdin="label: dos\nstart=2048, size=64M, type=83\n")
    loop.detach()
    (bench.folder / "part.img").touch()
    with (bench.folder / "part.img").open("wb") as stream:
        stream.truncate(64 * MIB)
    command(["mkfs.ext4", "-q", "-L", "inside", str(bench.folder / "part.img")])
    loop.write([(MIB, (bench.folder / "part.img").read_bytes())])
    bench.attach(partitions=partitions)
    refusals = {refusal.reason: refusal.seen for refusal in bench.judge().refusals}
    assert refusals.keys() == {"partition_table", "partition", "filesystem"}
    assert "ext4 ('inside'" in refusals["filesystem"]
    assert "in partition 1" in refusals["filesystem"]
    assert (f"{loop.kernel}p1" in refusals["partition"]) is partitions


def test_a_partition_that_only_the_kernel_still_has_is_refused(bench: Bench) -> None:
    loop = bench.loops[0]
    loop.write(gpt(loop.size, random.Random(1)))  # noqa: S311
    bench.attach(partitions=True)
    # The table goes, behind the kernel's back.
    with Path(loop.device).open("r+b") as stream:
        stream.write(bytes(8 * MIB))
        stream.seek(-MIB, 2)
        stream.write(bytes(MIB))
    assert reasons(bench.judge()) == ["partition"]


def test_a_token_is_void_after_any_change(bench: Bench) -> None:
    loop = bench.loops[0]
    loop.write(gpt(loop.size, random.Random(1)))  # noqa: S311
    bench.attach()
    tokens = {"d0": bench.judge().refusals[0].token}
    assert states(bench.judge(tokens=tokens)) == {"d0": "wipe"}
    for offset in (7 * MIB, loop.size - 7 * MIB):
        loop.detach()
        loop.write([(offset, b"\1")])
        bench.attach()
        changed = bench.judge(tokens=tokens)
        assert states(changed) == {"d0": "refused"}
        assert "for another drive or another state" in changed.refusals[0].seen
        loop.detach()
        loop.write([(offset, b"\0")])
        bench.attach()
        assert states(bench.judge(tokens=tokens)) == {"d0": "wipe"}


def test_a_token_is_of_no_use_for_a_drive_with_the_same_content(bench: Bench) -> None:
    for loop in bench.loops:
        loop.write(gpt(loop.size, random.Random(1)))  # noqa: S311
    bench.attach(0)
    bench.attach(1)
    verdict = bench.judge(*bench.entries(2))
    first, second = ({refusal.token for refusal in verdict.refusals if refusal.drive == name} for name in ("d0", "d1"))
    assert len(first) == len(second) == 1
    assert first != second
    swapped = {"d0": second.pop(), "d1": first.pop()}
    assert states(bench.judge(*bench.entries(2), tokens=swapped)) == {"d0": "refused", "d1": "refused"}


def test_the_devices_of_an_array_have_a_token_each(bench: Bench) -> None:
    for index, loop in enumerate(bench.loops):
        loop.write(gpt(loop.size, random.Random(index)))  # noqa: S311
        bench.attach(index)
    array = entry(["/dev/disk/by-id/nvme-test-0", "/dev/disk/by-id/nvme-test-1"], "r0")
    first, second = bench.judge(array).drives["r0"].tokens
    half = bench.judge(array, tokens={"r0": [first]})
    assert {refusal.device for refusal in half.refusals} == {"/dev/disk/by-id/nvme-test-1"}
    assert half.drives["r0"].tokens == (first, second)
    both = bench.judge(array, tokens={"r0": [second, first]})
    assert states(both) == {"r0": "wipe"}
    assert both.drives["r0"].wipe == ("/dev/disk/by-id/nvme-test-0", "/dev/disk/by-id/nvme-test-1")


# --- ours ---


def test_our_own_file_system_is_taken_as_it_is(bench: Bench) -> None:
    big_enough(bench)
    loop = bench.attach()
    command(["mkfs.xfs", "-q", "-L", "kvs-d0", loop.device])
    drive = bench.judge().drives["d0"]
    assert (drive.state, drive.fstype, drive.mounted) == ("own", "xfs", False)
    assert drive.uuid == command(["blkid", "--probe", "--output", "value", "--match-tag", "UUID", loop.device]).strip()
    mount = str(bench.folder / "mnt")
    bench.mounted(loop, "mnt", "norecovery")
    mounted = bench.judge(*bench.entries(mount=mount))
    assert (mounted.drives["d0"].state, mounted.drives["d0"].mounted) == ("own", True)
    assert reasons(bench.judge()) == ["mounted"]


@pytest.mark.parametrize("argv", [["mkfs.xfs", "-q", "-L", "kvs-d7"], ["mkfs.ext4", "-q", "-L", "kvs-d0"]])
def test_another_label_or_file_system_is_not_ours(bench: Bench, argv: list[str]) -> None:
    big_enough(bench)
    command([*argv, bench.attach().device])
    assert reasons(bench.judge()) == ["filesystem"]


def test_ext4_is_ours_where_the_site_has_ext4(bench: Bench) -> None:
    command(["mkfs.ext4", "-q", "-L", "kvs-d0", bench.attach().device])
    assert states(bench.judge(*bench.entries(fstype="ext4"))) == {"d0": "own"}


def test_our_own_file_system_with_anything_else_on_the_drive_is_not_ours(bench: Bench) -> None:
    big_enough(bench)
    loop = bench.attach()
    command(["mkfs.xfs", "-q", "-L", "kvs-d0", loop.device])
    loop.detach()
    loop.write(gpt(loop.size, random.Random(1), parts="backup"))  # noqa: S311
    bench.attach()
    assert "partition_table" in reasons(bench.judge())


# --- who uses it ---


def test_a_mounted_drive_is_refused_without_a_token(bench: Bench) -> None:
    loop = bench.attach()
    command(["mkfs.ext4", "-q", loop.device])
    bench.mounted(loop, "mnt", "noload")
    verdict = bench.judge()
    assert reasons(verdict) == ["mounted", "filesystem"]
    assert {refusal.token for refusal in verdict.refusals} == {None}


def test_a_drive_mounted_in_another_namespace_is_refused(bench: Bench) -> None:
    loop = bench.attach()
    command(["mkfs.ext4", "-q", loop.device])
    (bench.folder / "mnt").mkdir()
    bench.elsewhere(f"mount -o ro,noload {loop.device} {bench.folder}/mnt")
    assert loop.device not in Path("/proc/self/mountinfo").read_text()
    assert reasons(bench.judge()) == ["mounted", "filesystem"]


def test_a_mounted_partition_is_refused(bench: Bench) -> None:
    loop = bench.loops[0]
    loop.write(gpt(loop.size, random.Random(1), partitions=1))  # noqa: S311
    bench.attach(partitions=True)
    command(["mkfs.ext4", "-q", f"{loop.device}p1"])
    (bench.folder / "mnt").mkdir()
    command(["mount", "-o", "ro,noload", f"{loop.device}p1", str(bench.folder / "mnt")])
    loop.undo_later(["umount", str(bench.folder / "mnt")])
    assert reasons(bench.judge())[0] == "child_in_use"


def test_active_swap_space_is_refused(bench: Bench) -> None:
    loop = bench.attach()
    command(["mkswap", "-q", loop.device])
    command(["swapon", loop.device])
    loop.undo_later(["swapoff", loop.device])
    assert reasons(bench.judge()) == ["swap_in_use", "swap_signature"]


def test_a_drive_that_is_claimed_by_something_invisible_is_busy(bench: Bench) -> None:
    loop = bench.attach()
    descriptor = os.open(loop.device, os.O_RDONLY | os.O_EXCL)
    try:
        verdict = bench.judge()
    finally:
        os.close(descriptor)
    assert reasons(verdict) == ["busy"]
    assert states(bench.judge()) == {"d0": "blank"}


def test_a_drive_that_another_process_writes_is_busy(bench: Bench) -> None:
    loop = bench.attach()
    bench.holding(loop, "r+b")
    (refusal,) = bench.judge().refusals
    assert refusal.reason == "busy"
    assert "sleep (process " in refusal.seen


def test_a_drive_that_another_process_reads_is_free(bench: Bench) -> None:
    bench.holding(bench.attach(), "rb")
    assert states(bench.judge()) == {"d0": "blank"}


def test_a_loop_device_over_the_drive_is_a_holder(bench: Bench) -> None:
    loop = bench.attach()
    above = command(["losetup", "--find", "--show", "--read-only", loop.device]).strip()
    loop.undo_later(["losetup", "--detach", above])
    (refusal,) = bench.judge().refusals
    assert (refusal.reason, refusal.seen) == ("holder", f"it is held by {above.removeprefix('/dev/')}")


def test_both_devices_of_a_mounted_btrfs_file_system_are_refused(bench: Bench) -> None:
    needs("mkfs.btrfs")
    devices = [bench.attach(index).device for index in range(2)]
    # btrfs wants more than these drives have, unless data and metadata share their chunks.
    command(["mkfs.btrfs", "-q", "--mixed", "-d", "single", "-m", "single", *devices])
    command(["btrfs", "device", "scan", *devices])
    bench.loops[0].undo_later(["btrfs", "device", "scan", "--forget"])
    bench.mounted(bench.loops[0], "mnt")
    verdict = bench.judge(*bench.entries(2))
    assert (reasons(verdict, "d0"), reasons(verdict, "d1")) == (["mounted", "filesystem"], ["mounted", "filesystem"])


# --- which device it is ---


def test_two_names_of_one_loop_device_are_refused(bench: Bench) -> None:
    loop = bench.attach()
    other = bench.name("nvme-other", loop.device)
    verdict = bench.judge(*bench.entries(), entry(other, "d1"))
    assert (reasons(verdict), reasons(verdict, "d1")) == (["two_names"], ["two_names"])


def test_a_partition_by_id_is_refused(bench: Bench) -> None:
    loop = bench.loops[0]
    loop.write(gpt(loop.size, random.Random(1), partitions=1))  # noqa: S311
    bench.attach(partitions=True)
    part = bench.name("nvme-test-0-part1", f"{loop.device}p1")
    assert reasons(bench.judge(entry(part)))[0] == "not_whole"


def test_a_loop_device_has_no_serial_number_to_be_expected(bench: Bench) -> None:
    bench.attach()
    assert reasons(bench.judge(*bench.entries(serial="S1"))) == ["no_serial"]


def test_the_device_itself_says_how_large_it_is(bench: Bench) -> None:
    bench.attach()
    assert reasons(bench.judge(*bench.entries(size_gib=1))) == ["smaller"]
