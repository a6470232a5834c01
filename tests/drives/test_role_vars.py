"""What the role nvme derives of its variables, rendered as on each family of systems."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import filter_loader
from ansible.template import Templar, trust_as_template

from kvstrata.paths import PROJECT

ROLE = PROJECT / "roles" / "nvme"
ONE = {"name": "d0", "device": "/dev/disk/by-id/a"}
RAID = {"name": "r0", "devices": ["/dev/disk/by-id/a", "/dev/disk/by-id/b"]}


def rendered(name: str, **given: Any) -> Any:
    """The value of a variable of the role on a host called gpu1."""
    filter_loader.add_directory(str(PROJECT / "plugins" / "filter"))
    defaults = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
    texts = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())
    variables = {key: trust_as_template(text) if isinstance(text, str) else text for key, text in texts.items()}
    facts = {"os_family": given.pop("os_family", "Debian"), "virtualization_tech_guest": given.pop("guest", [])}
    known = {
        **defaults,
        **variables,
        "inventory_hostname": "gpu1",
        "ansible_facts": facts,
        "nvme_drives": [ONE],
        **given,
    }
    return Templar(loader=DataLoader(), variables=known).template(variables[name])


@pytest.mark.parametrize(
    ("given", "packages"),
    [
        ({}, ["nvme-cli", "xfsprogs", "fio"]),
        ({"os_family": "RedHat"}, ["nvme-cli", "xfsprogs", "fio", "fio-engine-libaio"]),
        ({"nvme_fstype": "ext4"}, ["nvme-cli", "e2fsprogs", "fio"]),
        ({"nvme_drives": [ONE, RAID]}, ["nvme-cli", "xfsprogs", "mdadm", "fio"]),
        ({"nvme_baseline": "never"}, ["nvme-cli", "xfsprogs"]),
        ({"nvme_baseline": "never", "os_family": "RedHat"}, ["nvme-cli", "xfsprogs"]),
    ],
)
def test_only_what_is_used_is_installed(given: dict[str, Any], packages: list[str]) -> None:
    assert rendered("_nvme_packages", **given) == packages


@pytest.mark.parametrize(
    ("guest", "has_udev"),
    [([], True), (["kvm"], True), (["container", "podman"], False), (["kvm", "container"], False)],
)
def test_a_container_is_taken_to_have_no_udev_and_a_virtual_machine_to_have_it(
    guest: list[str], has_udev: bool
) -> None:
    assert rendered("_nvme_has_udev", guest=guest) is has_udev


def test_a_host_gets_its_own_tokens_and_no_other_hosts() -> None:
    tokens = {"gpu1": {"d0": "00000000000000aa"}, "gpu2": {"d0": "00000000000000bb"}}
    assert rendered("_nvme_tokens", nvme_wipe_tokens=tokens) == {"d0": "00000000000000aa"}
    assert rendered("_nvme_tokens", nvme_wipe_tokens={"gpu2": tokens["gpu2"]}) == {}


def test_each_drive_has_a_timer_of_its_own() -> None:
    assert rendered("_nvme_trim_timers", nvme_drives=[ONE, RAID]) == [
        "kvstrata-fstrim@d0.timer",
        "kvstrata-fstrim@r0.timer",
    ]


def test_drives_are_mounted_as_the_file_system_that_is_asked_for() -> None:
    (drive,) = rendered("_nvme_drives", nvme_fstype="ext4")
    assert (drive["fstype"], drive["mount"]) == ("ext4", "/var/lib/kvstrata/drives/d0")


def test_only_the_drives_own_events_are_triggered() -> None:
    made = {"drives": {"d0": {"array": False, "source": "/dev/x", "devices": [{"kernel": "nvme0n1"}]}}}
    assert rendered("_nvme_matches", _nvme_made=made) == ["--sysname-match=nvme0n1"]


@pytest.mark.parametrize(
    ("given", "tools"),
    [
        ({}, ["/usr/sbin/nvme", "/usr/sbin/mkfs.xfs", "/usr/bin/fio"]),
        ({"nvme_fstype": "ext4", "nvme_baseline": "never"}, ["/usr/sbin/nvme", "/usr/sbin/mkfs.ext4"]),
        ({"nvme_drives": [RAID]}, ["/usr/sbin/nvme", "/usr/sbin/mkfs.xfs", "/usr/sbin/mdadm", "/usr/bin/fio"]),
    ],
)
def test_each_package_is_known_by_a_tool_of_it(given: dict[str, Any], tools: list[str]) -> None:
    assert rendered("_nvme_tools", **given) == tools
    assert len(tools) == len(rendered("_nvme_packages", **given))
