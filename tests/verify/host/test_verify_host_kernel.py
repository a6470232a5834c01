"""Limits of the units and settings of the kernel: what was asked for, and what is in force."""

from __future__ import annotations

import pytest

from kvstrata.verify.check import Check, Status
from kvstrata.verify.layers import host
from kvstrata.verify.layers.host import services, settings
from tests.verify.fakes.host import LIMITS
from tests.verify.fakes.site import Site

CLAMPED = LIMITS.format(files=20000, locked=8388608)


def ask(site: Site, check_id: str) -> Check:
    return next(check for check in host.checks(site.context()) if check.id == check_id)


# -- limits ----------------------------------------------------------------------------------------


def test_limits_are_read_as_the_kernel_writes_them() -> None:
    found = services.limits(LIMITS.format(files=1024, locked="unlimited"))
    assert found["Max open files"] == services.Limit(1024, 1024)
    assert found["Max locked memory"].hard == float("inf")


def test_limits_that_a_container_clamps_are_said_and_not_failed(site: Site) -> None:
    fake = site.nodes["node1"].host
    fake.limits = dict.fromkeys(("1", "kvrocks@d0.service", "lmcache.service", "vllm@0.service"), CLAMPED)
    fake.parts["container"] = "podman"
    check = ask(site, "host.limits")
    assert check.status is Status.SKIP
    assert check.seen == (
        "NOT CHECKED: that the limits are enough for a real load: the node is a container (podman), which can raise "
        "none above its own: 20000 open files, asked for are 1048576: kvrocks@d0.service, lmcache.service, "
        "vllm@0.service; 8388608 bytes of locked memory, asked for are unlimited: kvrocks@d0.service, lmcache.service, "
        "vllm@0.service"
    )
    # The same on a machine of its own is nobody's fault but the unit's.
    fake.parts["container"] = "none"
    assert ask(site, "host.limits").status is Status.FAIL


def test_a_unit_below_what_its_container_could_give_fails(site: Site) -> None:
    fake = site.nodes["node1"].host
    fake.parts["container"] = "podman"
    fake.limits = {"1": CLAMPED, "vllm@0.service": LIMITS.format(files=1024, locked="unlimited")}
    check = ask(site, "host.limits")
    assert (check.status, check.seen) == (
        Status.FAIL,
        "1024 open files, asked for are 1048576: vllm@0.service",
    )


def test_a_soft_limit_below_what_was_asked_for_fails(site: Site) -> None:
    site.nodes["node1"].host.limits["lmcache.service"] = (
        "Max open files            1024                 1048576              files\n"
    )
    assert ask(site, "host.limits").seen == ("1024 open files (soft limit), asked for are 1048576: lmcache.service")


def test_a_unit_that_asks_for_no_limit_of_files_has_what_the_kernel_gives(site: Site) -> None:
    site.nodes["node1"].host.units["vllm@0.service"] = "LimitNOFILE=infinity\nLimitNOFILESoft=infinity"
    assert ask(site, "host.limits").status is Status.PASS


def test_without_a_process_there_are_no_limits_to_look_at(site: Site) -> None:
    for unit in ("kvrocks@d0.service", "lmcache.service", "vllm@0.service"):
        site.nodes["node1"].host.units[unit] = "MainPID=0"
    assert ask(site, "host.limits").status is Status.SKIP


# -- settings --------------------------------------------------------------------------------------


def test_settings_are_read_as_the_role_writes_them() -> None:
    text = "# Written by Ansible = role\nvm.swappiness = 1\nnet.ipv4.tcp_rmem = 4096\t131072  33554432\n"
    assert settings.sysctls(text) == {"vm.swappiness": "1", "net.ipv4.tcp_rmem": "4096 131072 33554432"}
    assert settings.boot("# x\nw /sys/a - - - - madvise\n") == {"/sys/a": "madvise"}
    now = "/sys/a* /sys/ab = always [madvise] never\n/sys/a* /sys/ac = performance\n"
    assert settings.below_sys(now) == {"/sys/a*": {"/sys/ab": "madvise", "/sys/ac": "performance"}}


@pytest.mark.parametrize(
    ("parts", "seen"),
    [
        ({"sysctl-now": "vm.swappiness = 1"}, "net.ipv4.tcp_rmem is not there, not 4096 131072 33554432"),
        (
            {
                "boot": "w /sys/cpu* - - - - performance",
                "boot-now": "/sys/cpu* /sys/cpu0 = performance\n/sys/cpu* /sys/cpu1 = powersave",
            },
            "/sys/cpu1 is powersave, not performance",
        ),
        ({"boot-now": ""}, "/sys/kernel/mm/transparent_hugepage/enabled is not there, to be madvise"),
    ],
)
def test_a_setting_that_is_not_in_force_is_named(site: Site, parts: dict[str, str], seen: str) -> None:
    site.nodes["node1"].host.parts |= parts
    check = ask(site, "host.settings")
    assert (check.status, check.seen) == (Status.FAIL, seen)


@pytest.mark.parametrize(("container", "seen"), [("podman", "a container (podman)"), ("none", "wrote none")])
def test_where_the_role_wrote_nothing_nothing_is_proven(site: Site, container: str, seen: str) -> None:
    site.nodes["node1"].host.parts |= {"sysctl": "", "boot": "", "container": container}
    check = ask(site, "host.settings")
    assert check.status is Status.SKIP
    assert seen in check.seen
