"""Drives: what is mounted where, what they say of themselves, and how fast they read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from kvstrata.verify.check import Check, Status, UnableError
from kvstrata.verify.layers import host
from kvstrata.verify.layers.host import health, speed
from kvstrata.verify.shell import CommandTimeoutError
from tests.verify.fakes.host import BASELINE_MBPS, READ_DRIVES, SMART, UUID, findmnt
from tests.verify.fakes.site import Site

RAID = ["/dev/disk/by-id/nvme-a", "/dev/disk/by-id/nvme-b"]


def ask(site: Site, check_id: str) -> Check:
    return next(check for check in host.checks(site.context()) if check.id == check_id)


def with_raid(site: Site) -> dict[str, str]:
    """A RAID0 of two drives; the parts of the survey that tell of it, to be changed."""
    site.document["nodes"][0]["mounts"] = [{"path": "/drives/r0", "fstype": "xfs", "devices": RAID}]
    shell, fake = site.nodes["node1"].shell, site.nodes["node1"].host
    shell.answers["findmnt"] = findmnt("/drives/r0", source="/dev/md127", **{"maj:min": "9:127"})
    fake.parts["block /drives/r0"] = "leaf 259:1 nvme1n1\nleaf 259:2 nvme2n1"
    fake.parts["devices /drives/r0"] = f"{RAID[0]} /dev/nvme1n1 103 1\n{RAID[1]} /dev/nvme2n1 103 2"
    for disk in ("nvme1n1", "nvme2n1"):
        fake.parts[f"smart {disk}"] = json.dumps(SMART) + "\n\nexit 0"
    return fake.parts


# -- mounts ----------------------------------------------------------------------------------------


def test_a_raid_is_its_members_whatever_its_number(site: Site) -> None:
    parts = with_raid(site)
    check = ask(site, "host.mount")
    assert (check.status, check.seen) == (Status.PASS, "xfs from /dev/md127 (9:127), rw")
    parts["block /drives/r0"] = "leaf 259:1 nvme1n1\nleaf 259:7 nvme7n1"
    check = ask(site, "host.mount")
    assert check.status is Status.FAIL
    assert f"another drive: {RAID[0]} is /dev/nvme1n1 (259:1), {RAID[1]} is /dev/nvme2n1 (259:2)" in check.seen


def test_a_layer_upon_the_right_drive_is_the_right_drive(site: Site) -> None:
    fake = site.nodes["node1"].host
    site.document["nodes"][0]["mounts"][0]["device"] = RAID[0]
    site.nodes["node1"].shell.answers["findmnt"] = findmnt("/drives/d0", source="/dev/dm-0", **{"maj:min": "253:0"})
    fake.parts["devices /drives/d0"] = f"{RAID[0]} /dev/nvme0n1 103 0"
    assert ask(site, "host.mount").status is Status.PASS


def test_a_drive_that_is_gone_is_named(site: Site) -> None:
    site.document["nodes"][0]["mounts"][0]["device"] = RAID[0]
    site.nodes["node1"].host.parts["devices /drives/d0"] = f"{RAID[0]} {RAID[0]}"
    check = ask(site, "host.mount")
    assert check.status is Status.FAIL
    assert check.seen.endswith(f"and there is no {RAID[0]}")


def test_a_mount_that_cannot_be_asked_for_is_an_error(site: Site) -> None:
    site.nodes["node1"].host.parts["mount /drives/d0"] = "exit 127\nsh: findmnt: not found"
    check = ask(site, "host.mount")
    assert check.status is Status.ERROR
    assert "findmnt: not found" in check.seen


# -- health ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"critical_warning": 1}, "spare space is short"),
        ({"critical_warning": {"value": 8, "ro": 1}}, "read-only"),
        ({"avail_spare": 4}, "spare space is short"),
        ({"percent_used": 104}, "104 % of the writes that its maker warrants are used up"),
    ],
)
def test_a_drive_that_warns_fails(changes: dict[str, Any], wrong: str) -> None:
    found, _ = health.judged("nvme0n1", SMART | changes)
    assert found == [f"nvme0n1: {wrong}"]


def test_media_errors_of_a_life_are_told_and_not_failed(site: Site) -> None:
    site.nodes["node1"].host.parts["smart nvme0n1"] = json.dumps(SMART | {"media_errors": 7}) + "\n\nexit 0"
    check = ask(site, "host.drive_health")
    assert check.status is Status.PASS
    assert check.seen == "nvme0n1: 3 % used, 100 % spare, 7 media errors in its life"
    assert check.data["nvme0n1"] == {
        "critical_warning": 0,
        "media_errors": 7,
        "used_percent": 3,
        "spare_percent": 100,
    }


def test_each_member_of_a_raid_is_asked(site: Site) -> None:
    parts = with_raid(site)
    assert "nvme1n1: 3 % used" in ask(site, "host.drive_health").seen
    parts["smart nvme2n1"] = json.dumps(SMART | {"critical_warning": 2}) + "\n\nexit 0"
    check = ask(site, "host.drive_health")
    assert (check.status, check.seen) == (Status.FAIL, "nvme2n1: too hot or too cold")


def test_a_log_that_cannot_be_read_is_an_error() -> None:
    with pytest.raises(UnableError, match="ended with exit 1 and said: Permission denied"):
        health.smart("Permission denied\n\nexit 1")
    with pytest.raises(UnableError, match="wrote no JSON"):
        health.smart("Smart Log for NVME\nexit 0")


@pytest.mark.parametrize(
    ("parts", "seen"),
    [
        ({"block /drives/d0": "leaf 7:3 loop3"}, "loop3 is no NVMe drive and keeps no log of it"),
        ({"smart": "missing"}, "there is no nvme-cli on the node"),
        ({"mount /drives/d0": "exit 1"}, "it is not a mount point, see host.mount"),
    ],
)
def test_where_there_is_no_log_nothing_is_proven(site: Site, parts: dict[str, str], seen: str) -> None:
    site.nodes["node1"].host.parts |= parts
    check = ask(site, "host.drive_health")
    assert check.status is Status.SKIP
    assert check.seen.startswith("NOT CHECKED: the drive's health: ")
    assert seen in check.seen


# -- speed -----------------------------------------------------------------------------------------


def baseline(site: Site, **changes: Any) -> None:
    recorded = {"on_written_data": False, "used_bytes": 0, "seq_1m": {"mb_per_s": BASELINE_MBPS}}
    site.nodes["node1"].host.fact["drives"]["d0"] = {"uuid": UUID, "baseline": recorded | changes}


def answer(site: Site, **changes: Any) -> None:
    """What the program on the node finds, other than by default."""
    fake = site.nodes["node1"].host

    def found(argv: Sequence[str]) -> str:
        return json.dumps({name: entry | changes for name, entry in json.loads(fake.read_drives(argv)).items()})

    site.nodes["node1"].shell.answers[READ_DRIVES] = found


def test_the_quickest_span_counts_and_the_others_of_the_drive_too() -> None:
    span = 1 << 26
    found = speed.reading(
        {
            "spans": [
                {"bytes": span, "seconds": 0.1},
                {"bytes": span, "seconds": 0.05},
                {"bytes": 1 << 20, "seconds": 1e-6},
            ],
            "seconds": 0.2,
            "others_bytes": 200_000_000,
            "from": "device",
            "used_bytes": 0,
            "size_bytes": 1,
        }
    )
    # Megabytes are of 10^6 bytes, as fio's; the last span is too short to count.
    assert found.best == pytest.approx(span / 1e6 / 0.05)
    assert found.others == pytest.approx(1000)
    assert found.rate == found.best + found.others


def test_a_drive_too_slow_for_one_span_is_judged_by_what_it_read(site: Site) -> None:
    answer(site, spans=[{"bytes": 20 << 20, "seconds": 2.1}], seconds=2.1)
    check = ask(site, "host.drive_speed")
    assert check.status is Status.FAIL
    assert check.seen == "10 MB/s from its device: 0.00 of 6500 MB/s"


def test_a_drive_at_work_is_not_slow_for_it(site: Site) -> None:
    site.nodes["node1"].host.speed_share = 0.2
    answer(site, seconds=1.0, others_bytes=3_000_000_000)
    check = ask(site, "host.drive_speed")
    assert check.status is Status.PASS
    assert check.seen == "1300 MB/s from its device, others 3000 MB/s meanwhile: 0.66 of 6500 MB/s"
    assert check.data == {"mb_per_s": 1300.0, "others_mb_per_s": 3000.0, "baseline_mb_per_s": 6500.0}


def test_a_slow_moment_is_looked_at_again(site: Site) -> None:
    fake = site.nodes["node1"].host
    shares = iter([0.1, 0.9])

    def found(argv: Sequence[str]) -> str:
        fake.speed_share = next(shares)
        return fake.read_drives(argv)

    site.nodes["node1"].shell.answers[READ_DRIVES] = found
    assert ask(site, "host.drive_speed").seen == "5850 MB/s from its device: 0.90 of 6500 MB/s"


def test_the_inventory_says_how_slow_a_drive_may_be(site: Site) -> None:
    site.nodes["node1"].host.speed_share = 0.3
    assert ask(site, "host.drive_speed").status is Status.FAIL
    site.document["verify"]["limits"] = {"drive_share": 0.25}
    assert ask(site, "host.drive_speed").status is Status.PASS


def test_a_drive_that_cannot_be_read_fails(site: Site) -> None:
    answer(site, error="Input/output error")
    check = ask(site, "host.drive_speed")
    assert (check.status, check.seen) == (Status.FAIL, "cannot be read: Input/output error")


def test_a_device_that_the_node_may_not_read_is_an_error(site: Site) -> None:
    answer(site, error="Operation not permitted", denied=True)
    check = ask(site, "host.drive_speed")
    assert check.status is Status.ERROR
    assert check.seen == "could not check: the node may not read the device: Operation not permitted"


def test_a_drive_that_never_answers_fails(site: Site) -> None:
    def hang(argv: Sequence[str]) -> str:
        raise CommandTimeoutError("did not end")

    site.nodes["node1"].shell.answers[READ_DRIVES] = hang
    check = ask(site, "host.drive_speed")
    assert (check.status, check.seen) == (Status.FAIL, "reading 256 MiB did not end within 5 s")


def test_a_drive_that_filled_up_is_not_judged_by_blocks_that_were_never_written(site: Site) -> None:
    site.nodes["node1"].host.speed_share = 0.3
    answer(site, used_bytes=700 << 30)
    baseline(site)
    check = ask(site, "host.drive_speed")
    assert check.status is Status.SKIP
    assert "1950 MB/s from its device: 0.30 of 6500 MB/s" in check.seen
    assert "nvme_baseline=always" in check.seen
    # A baseline of written data is of what is read now.
    baseline(site, on_written_data=True)
    assert ask(site, "host.drive_speed").status is Status.FAIL
    # Full then as now: the same blocks are read.
    baseline(site, used_bytes=690 << 30)
    assert ask(site, "host.drive_speed").status is Status.FAIL


def test_files_are_read_where_the_baseline_is_of_files(site: Site) -> None:
    baseline(site, on_written_data=True)
    ask(site, "host.drive_speed")
    (line,) = (line for line in site.nodes["node1"].shell.ran if line.startswith(READ_DRIVES))
    drive = {"mount": "/drives/d0", "device": "/dev/nvme0n1", "number": "259:0", "written": True}
    assert json.loads(line[len(READ_DRIVES) :]) == {"d0": drive}


@pytest.mark.parametrize(
    ("fact", "seen"),
    [
        ({"uuid": UUID, "baseline": None}, "no baseline was recorded; to measure: ansible-playbook"),
        ({"uuid": "another", "baseline": {"seq_1m": {"mb_per_s": 1}}}, "the baseline is of another file system"),
    ],
)
def test_without_a_baseline_nothing_is_proven_and_it_says_what_to_run(
    site: Site, fact: dict[str, Any], seen: str
) -> None:
    site.nodes["node1"].host.fact["drives"]["d0"] = fact
    site.nodes["node1"].shell.answers["findmnt"] = findmnt("/drives/d0")
    check = ask(site, "host.drive_speed")
    assert check.status is Status.SKIP
    assert seen in check.seen
    if not fact["baseline"]:
        assert not [line for line in site.nodes["node1"].shell.ran if line.startswith(READ_DRIVES)]


def test_a_fact_of_another_form_is_none(site: Site) -> None:
    site.nodes["node1"].host.fact["schema"] = 2
    assert "no baseline was recorded" in ask(site, "host.drive_speed").seen
    site.nodes["node1"].host.parts["drives"] = ""
    assert "no baseline was recorded" in ask(site, "host.drive_speed").seen
    site.nodes["node1"].host.parts["drives"] = "{"
    assert ask(site, "host.drive_speed").status is Status.ERROR
