"""Variables nvme_* that cannot work are refused by name, with what is allowed."""

from __future__ import annotations

import pytest
import yaml

from kvstrata.paths import PROJECT
from kvstrata.preflight.nvme import judge_nvme


def test_the_defaults_are_accepted() -> None:
    defaults = yaml.safe_load((PROJECT / "roles" / "nvme" / "defaults" / "main.yml").read_text())
    assert judge_nvme("node1", defaults) == []
    assert judge_nvme("node1", {}) == []


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("nvme_readahead_kib", -1, "0 to 16384"),
        ("nvme_readahead_kib", 16388, "0 to 16384"),
        ("nvme_readahead_kib", 130, "a multiple of 4"),
        ("nvme_baseline_seconds", 0, "1 to 60"),
        ("nvme_baseline_seconds", 61, "1 to 60"),
        ("nvme_mode", "755", "four octal digits"),
        ("nvme_mode", "0750", "let others pass"),
        ("nvme_mode", 493, "in quotes"),
        ("nvme_owner", "no one", "the name of a user"),
        ("nvme_group", "", "the name of a user"),
        ("nvme_mount_options", "noatime, nodev", "no blanks"),
        ("nvme_mount_options", "", "options with commas"),
        ("nvme_mount_options", "noatime,ro", "without ro: it is refused because a store writes"),
        ("nvme_mount_options", "noatime,discard", "without discard"),
        ("nvme_mount_options", "commit=30", "without commit: it is an option of ext4, and nvme_fstype is xfs"),
    ],
)
def test_what_cannot_work_is_refused_with_what_is_allowed(name: str, value: object, allowed: str) -> None:
    [problem] = judge_nvme("node1", {name: value})
    assert str(problem).startswith(f"node1: {name} is {value!r}; allowed: ")
    assert allowed in str(problem)


def test_options_of_xfs_are_refused_on_ext4() -> None:
    [problem] = judge_nvme("node1", {"nvme_fstype": "ext4", "nvme_mount_options": "noatime,logbsize=256k"})
    assert "without logbsize: it is an option of xfs" in problem.allowed


@pytest.mark.parametrize(
    "given",
    [
        {"nvme_mount_options": "noatime,logbsize=256k"},
        {"nvme_mount_options": "noatime,commit=30", "nvme_fstype": "ext4"},
        {"nvme_readahead_kib": 0, "nvme_baseline_seconds": 60, "nvme_mode": "0711", "nvme_group": "kv_rocks-1"},
    ],
)
def test_what_can_work_is_accepted(given: dict[str, object]) -> None:
    assert judge_nvme("node1", given) == []
