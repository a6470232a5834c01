"""The udev rules of a host's drives."""

from __future__ import annotations

from typing import Any

from kvstrata.drives.rules import kernel_names, udev_rules


def drive(*devices: dict[str, Any], array: bool = False, source: str | None = "/dev/disk/by-id/x") -> dict[str, Any]:
    return {"array": array, "source": source, "devices": list(devices)}


def device(kernel: str = "nvme0n1", wwid: str = "eui.1", serial: str = "S1") -> dict[str, Any]:
    return {"kernel": kernel, "wwid": wwid, "serial": serial}


def test_a_drive_is_known_by_its_own_identity_and_gets_scheduler_and_readahead() -> None:
    (rule,) = udev_rules({"d0": drive(device())}, "none", 128)
    assert 'ACTION=="add|change", SUBSYSTEM=="block", ENV{DEVTYPE}=="disk"' in rule
    assert 'ATTRS{wwid}=="eui.1"' in rule
    assert rule.endswith('ATTR{queue/scheduler}="none", ATTR{queue/read_ahead_kb}="128"')


def test_a_drive_without_such_an_identity_is_known_by_its_serial_number() -> None:
    (rule,) = udev_rules({"d0": drive(device(wwid=""))}, "none", 128)
    assert 'ATTRS{serial}=="S1"' in rule


def test_a_drive_that_nothing_identifies_gets_no_rule_that_would_fit_others() -> None:
    assert udev_rules({"d0": drive(device(wwid="", serial=""))}, "none", 128) == []


def test_no_character_of_a_drive_is_a_pattern_for_udev() -> None:
    (rule,) = udev_rules({"d0": drive(device(wwid='t10.A* [x]"|b'))}, "none", 128)
    assert 'ATTRS{wwid}=="t10.A???x???b"' in rule


def test_an_array_has_a_rule_of_its_own_without_a_scheduler() -> None:
    array = drive(device(), device("nvme1n1", "eui.2"), array=True, source="/dev/md127")
    rules = udev_rules({"d0": array}, "none", 256)
    assert len(rules) == 3
    assert 'ENV{MD_NAME}=="*:kvs-d0", ATTR{queue/read_ahead_kb}="256"' in rules[2]


def test_the_rules_are_applied_to_devices_and_arrays_that_are_there() -> None:
    array = drive(device(), device("nvme1n1", "eui.2"), array=True, source="/dev/md127")
    assert kernel_names({"d0": array, "d1": drive(device("nvme2n1"))}) == ["nvme0n1", "nvme1n1", "md127", "nvme2n1"]
    assert kernel_names({"d0": {**array, "source": None}}) == ["nvme0n1", "nvme1n1"]
