"""One planted fault, one check that names it: the host layer of a node of the fake site, whole."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from kvstrata.verify.check import Check, Status
from kvstrata.verify.layers import host
from tests.verify.fakes.host import SURVEY, findmnt
from tests.verify.fakes.site import Site

DEVICE = "/dev/disk/by-id/nvme-eui.0025385b71b0a1c2"


def with_device(site: Site) -> Site:
    """The site, its drives named by the inventory."""
    for node in site.document["nodes"]:
        node["mounts"][0]["device"] = DEVICE
    return site


def other_drive(site: Site) -> None:
    with_device(site)
    site.nodes["node1"].host.parts[f"devices {'/drives/d0'}"] = f"{DEVICE} /dev/nvme3n1 103 5"


def folder(site: Site) -> None:
    site.nodes["node1"].shell.answers["findmnt"] = findmnt("/drives/d0", fsroot="/srv/data", source="/dev/sda1[/srv]")


def not_mounted(site: Site) -> None:
    shell = site.nodes["node1"].shell
    shell.answers["findmnt"], shell.exits["findmnt"] = "", 1


def skewed_clock(site: Site) -> None:
    site.nodes["node1"].host.skew_s = -3
    site.nodes["node1"].shell.answers["date"] = "0"


def moved_process(site: Site) -> None:
    site.nodes["node1"].host.processes["kvrocks@d0.service"] = "Cpus_allowed_list:\t1\nMems_allowed_list:\t0\n"


def slow_drive(site: Site) -> None:
    site.nodes["node1"].host.speed_share = 0.1


def lossy_link(site: Site) -> None:
    site.nodes["node2"].host.lost = 40


def other_kernel_setting(site: Site) -> None:
    site.nodes["node1"].host.parts["sysctl-now"] = "vm.swappiness = 60\nnet.ipv4.tcp_rmem = 4096 131072 33554432"


def low_limit(site: Site) -> None:
    site.nodes["node1"].host.limits["lmcache.service"] = (
        "Max open files            1024                 4096                 files\n"
    )


def worn_drive(site: Site) -> None:
    site.nodes["node1"].host.parts["smart nvme0n1"] = json.dumps({"critical_warning": 4}) + "\n\nexit 0"


def stopped_unit(site: Site) -> None:
    site.nodes["node1"].units["vllm@0.service"] = "LoadState=loaded\nActiveState=failed\nSubState=failed"


FAULTS: list[tuple[Callable[[Site], None], str, str]] = [
    (other_drive, "host.mount", f"another drive: {DEVICE} is /dev/nvme3n1 (259:5)"),
    (folder, "host.mount", "the folder /srv/data of another file system, bound there"),
    (not_mounted, "host.mount", "not a mount point"),
    (skewed_clock, "host.clock", "3.000 s behind"),
    (moved_process, "host.numa", "kvrocks@d0.service runs on CPUs 1; systemd was told CPUs any, which are 0-1"),
    (slow_drive, "host.drive_speed", "650 MB/s from its device: 0.10 of 6500 MB/s"),
    (lossy_link, "host.link", "40 of 938 segments lost (4.26%)"),
    (other_kernel_setting, "host.settings", "vm.swappiness is 60, not 1"),
    (low_limit, "host.limits", "4096 open files, asked for are 1048576: lmcache.service"),
    (worn_drive, "host.drive_health", "nvme0n1: less reliable after media errors"),
    (stopped_unit, "host.unit", "failed (failed)"),
]


@pytest.mark.parametrize(("plant", "check_id", "seen"), FAULTS, ids=[plant.__name__ for plant, _, _ in FAULTS])
def test_a_planted_fault_is_named_by_one_check_and_no_other(
    site: Site, plant: Callable[[Site], None], check_id: str, seen: str
) -> None:
    plant(site)
    bad = [check for check in host.checks(site.context()) if check.bad]
    assert [check.id for check in bad] == [check_id]
    assert bad[0].status is Status.FAIL
    assert seen in bad[0].seen
    assert not [check for check in host.checks(site.context("node2")) if check.bad]


def test_all_is_well_on_a_node_that_is_well(site: Site) -> None:
    checks = list(host.checks(with_device(site).context()))
    assert {check.status for check in checks} == {Status.PASS}
    assert {check.id for check in checks} == {
        "host.unit",
        "host.limits",
        "host.mount",
        "host.drive_health",
        "host.drive_speed",
        "host.clock",
        "host.numa",
        "host.settings",
        "host.link",
    }


def test_a_node_is_asked_by_few_commands(site: Site) -> None:
    list(host.checks(site.context()))
    # Units, survey, drives; and the neighbour sends.
    assert len(site.nodes["node1"].shell.ran) == 3
    assert len(site.nodes["node2"].shell.ran) == 1


def test_what_the_survey_could_not_tell_is_an_error_and_no_failure(site: Site) -> None:
    del site.nodes["node1"].shell.answers[SURVEY]
    found: list[Check] = [check for check in host.checks(site.context()) if check.status is Status.ERROR]
    assert {check.id for check in found} >= {"host.mount", "host.clock", "host.limits", "host.numa", "host.settings"}
    assert not [check for check in host.checks(site.context()) if check.status is Status.FAIL]
    # The script is long, and helps nobody in a report.
    assert all(len(check.seen) < 400 for check in found)
