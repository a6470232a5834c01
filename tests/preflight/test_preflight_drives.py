"""The rules over drives as an inventory names them, and what a user reads of the guard's refusals."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from kvstrata.preflight.drives import judge_drives, judge_shared_devices, judge_tokens, refused_drives
from kvstrata.preflight.problem import Problem

BY_ID = "/dev/disk/by-id/nvme-eui.0025385b21404321"
OTHER = "/dev/disk/by-id/nvme-KIOXIA_CM7_9X8Y7Z"
TOKEN = "0123456789abcdef"


def entry(name: object = "d0", **fields: Any) -> dict[str, Any]:
    return {"name": name, "store_gib": 1, **(fields or {"device": BY_ID})}


def lines(problems: list[Problem]) -> list[str]:
    return [str(problem) for problem in problems]


# --- names and devices ---


@pytest.mark.parametrize(
    "device",
    [
        BY_ID,
        OTHER,
        "/dev/disk/by-id/wwn-0x5000c500a1b2c3d4",
        "/dev/disk/by-id/virtio-d0",
        "/dev/disk/by-id/nvme-lab-node1-0",
    ],
)
def test_a_name_by_id_passes(device: str) -> None:
    assert judge_drives("n1", [entry(device=device)]) == []


@pytest.mark.parametrize(
    "device",
    [
        "/dev/nvme0n1",
        "/dev/sda",
        "/dev/mapper/vg-lv",
        "/dev/md127",
        "/dev/loop0",
        "/dev/disk/by-uuid/1",
        "/dev/disk/by-path/pci-0000:01:00.0-nvme-1",
        "/dev/disk/by-label/data",
        "/dev/disk/by-id/",
        "/dev/disk/by-id/a/b",
        "/dev/disk/by-id/../../sda",
        "nvme0n1",
        f" {BY_ID}",
        f"{BY_ID}\n",
    ],
)
@pytest.mark.parametrize("several", [False, True], ids=["device", "devices"])
def test_any_other_name_is_refused_everywhere(device: str, several: bool) -> None:
    drive = entry(devices=[OTHER, device]) if several else entry(device=device)
    (problem,) = judge_drives("n1", [drive])
    assert (problem.variable, problem.given) == (f"kvstrata_drives[d0].{'devices' if several else 'device'}", device)
    assert problem.allowed.startswith("a name below /dev/disk/by-id/")
    assert "nvme_discover" in problem.allowed


def test_a_drive_is_either_one_device_or_several() -> None:
    both, neither = entry(device=BY_ID, devices=[BY_ID, OTHER]), entry(size_gib=1)
    assert [problem.allowed for problem in judge_drives("n1", [both])] == ["either device or devices, and one of them"]
    assert [problem.allowed for problem in judge_drives("n1", [neither])] == [
        "either device or devices, and one of them"
    ]
    assert judge_drives("n1", [entry(devices=[BY_ID, OTHER])]) == []


@pytest.mark.parametrize("devices", [[], [BY_ID]])
def test_an_array_has_two_devices_or_more(devices: list[str]) -> None:
    (problem,) = judge_drives("n1", [entry(devices=devices)])
    assert (problem.variable, problem.given) == ("kvstrata_drives[d0].devices", devices)
    assert problem.allowed == "two devices or more; for one there is `device`"


def test_serials_belong_to_their_devices() -> None:
    assert judge_drives("n1", [entry(device=BY_ID, serial="S1"), entry("d1", device=OTHER, size_gib=100)]) == []
    assert judge_drives("n1", [entry(devices=[BY_ID, OTHER], serials=["S1", "S2"])]) == []
    assert lines(judge_drives("n1", [entry(devices=[BY_ID, OTHER], serials=["S1"])])) == [
        "n1: kvstrata_drives[d0].serials is ['S1']; allowed: one for each of the 2 devices"
    ]
    assert lines(judge_drives("n1", [entry(devices=[BY_ID, OTHER], serial="S1")])) == [
        "n1: kvstrata_drives[d0].serial is 'S1'; allowed: only together with device"
    ]
    assert lines(judge_drives("n1", [entry(device=BY_ID, serials=["S1"])])) == [
        "n1: kvstrata_drives[d0].serials is ['S1']; allowed: only together with devices"
    ]


@pytest.mark.parametrize(
    ("drives", "names"),
    [
        ([entry("d0", device=BY_ID), entry("d1", device=BY_ID)], "d0 and d1"),
        ([entry("d0", device=BY_ID), entry("d1", devices=[OTHER, BY_ID])], "d0 and d1"),
        ([entry("d0", devices=[BY_ID, BY_ID])], "d0 and d0"),
    ],
)
def test_one_device_twice_on_a_host_is_refused(drives: list[dict[str, Any]], names: str) -> None:
    assert lines(judge_drives("n1", drives)) == [
        f"n1: kvstrata_drives[{names}].device is '{BY_ID}'; allowed: a device of its own for each drive"
    ]


def test_one_name_for_two_drives_of_a_host_is_refused() -> None:
    assert lines(judge_drives("n1", [entry(device=BY_ID), entry(device=OTHER)])) == [
        "n1: kvstrata_drives[].name is 'd0'; allowed: a name of its own for each drive of the host"
    ]


@pytest.mark.parametrize("name", ["", "0d", "D0", "d-0", "d 0", "ninechars", "d0\n", 0])
def test_a_drive_name_that_no_unit_can_carry_is_refused(name: object) -> None:
    assert lines(judge_drives("n1", [entry(name)])) == [
        f"n1: kvstrata_drives[].name is {name!r}; allowed: a lower-case letter, then up to 7 of a-z, 0-9 and _"
    ]


@pytest.mark.parametrize("name", ["d", "d0", "nvme_0", "eightchr"])
def test_a_good_drive_name_passes(name: str) -> None:
    assert judge_drives("n1", [entry(name)]) == []


# --- several hosts ---


@pytest.mark.parametrize("device", [BY_ID, OTHER, "/dev/disk/by-id/wwn-0x5000c500a1b2c3d4"])
def test_a_name_that_the_world_has_once_is_refused_on_two_hosts(device: str) -> None:
    hosts = {"n1": [entry(device=device)], "n2": [entry("d7", devices=[device, "/dev/disk/by-id/nvme-x"])], "n3": []}
    assert lines(judge_shared_devices(hosts)) == [
        f"n1 and n2: kvstrata_drives[].device is '{device}'; allowed: a drive on one host alone, as this name says"
    ]


def test_names_that_a_hypervisor_gives_to_every_machine_may_be_on_two_hosts() -> None:
    hosts = {host: [entry(device="/dev/disk/by-id/virtio-d0")] for host in ("n1", "n2")}
    assert judge_shared_devices(hosts) == []


# --- tokens ---

HOSTS = {"n1": [entry("d0"), entry("r0", devices=[OTHER, "/dev/disk/by-id/nvme-x"])], "n2": []}


@pytest.mark.parametrize(
    "tokens",
    [
        {},
        {"n1": {}},
        {"n1": {"d0": TOKEN}},
        {"n1": {"d0": [TOKEN], "r0": [TOKEN, "f" * 16]}},
        {"n1": {"r0": TOKEN}},
    ],
)
def test_tokens_for_drives_of_the_inventory_pass(tokens: dict[str, Any]) -> None:
    assert judge_tokens(tokens, HOSTS) == []


@pytest.mark.parametrize(
    ("tokens", "variable", "allowed"),
    [
        (TOKEN, "nvme_wipe_tokens", "{host: {drive: token}}"),
        ({"n9": {"d0": TOKEN}}, "nvme_wipe_tokens[n9]", "nodes of the group kvstrata: n1, n2"),
        ({"n1": TOKEN}, "nvme_wipe_tokens[n1]", "{drive: token}"),
        ({"n1": {"d9": TOKEN}}, "nvme_wipe_tokens[n1][d9]", "drives of n1: d0, r0"),
        ({"n2": {"d0": TOKEN}}, "nvme_wipe_tokens[n2][d0]", "drives of n2: none"),
        ({"n1": {"d0": TOKEN[1:]}}, "nvme_wipe_tokens[n1][d0]", "a token of 16 hex digits in quotes"),
        ({"n1": {"d0": TOKEN.upper()}}, "nvme_wipe_tokens[n1][d0]", "a token of 16 hex digits in quotes"),
        ({"n1": {"d0": TOKEN + "\n"}}, "nvme_wipe_tokens[n1][d0]", "a token of 16 hex digits in quotes"),
        ({"n1": {"d0": 1234567890123456}}, "nvme_wipe_tokens[n1][d0]", "a token of 16 hex digits in quotes"),
        ({"n1": {"d0": True}}, "nvme_wipe_tokens[n1][d0]", "a token of 16 hex digits in quotes"),
        ({"n1": {"d0": []}}, "nvme_wipe_tokens[n1][d0]", "a token of 16 hex digits in quotes"),
        ({"n1": {"d0": [TOKEN, TOKEN]}}, "nvme_wipe_tokens[n1][d0]", "a token of 16 hex digits in quotes"),
        ({"n1": {"r0": [TOKEN, "all"]}}, "nvme_wipe_tokens[n1][r0]", "one to 2 tokens of 16 hex digits in quotes"),
    ],
)
def test_any_other_token_is_refused(tokens: object, variable: str, allowed: str) -> None:
    (problem,) = judge_tokens(tokens, HOSTS)
    assert problem.variable == variable
    assert problem.allowed.startswith(allowed)


# --- what the guard refused ---


def refusal(reason: str, token: str | None, device: str = BY_ID, drive: str = "d0") -> dict[str, Any]:
    return {
        "drive": drive,
        "device": device,
        "reason": reason,
        "seen": f"seen {reason}",
        "allowed": f"allowed {reason}",
        "token": token,
    }


def guard(*refusals: dict[str, Any], tokens: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"drives": {name: {"tokens": list(tokens)} for name in ("d0", "r0")}, "refusals": list(refusals)}


def test_a_refusal_without_a_token_names_variable_device_reason_and_what_is_allowed() -> None:
    problems = refused_drives("n1", HOSTS["n1"], guard(refusal("mounted", None)))
    assert lines(problems) == [
        f"n1: kvstrata_drives[d0].device is '{BY_ID}'; allowed: allowed mounted (mounted: seen mounted)"
    ]


def test_what_a_drive_holds_is_one_problem_with_the_line_to_paste() -> None:
    refusals = guard(refusal("partition_table", TOKEN), refusal("filesystem", TOKEN), tokens=(TOKEN,))
    (problem,) = refused_drives("n1", HOSTS["n1"], refusals)
    assert "(partition_table: seen partition_table; filesystem: seen filesystem)" in problem.allowed
    pasted = yaml.safe_load(problem.allowed[problem.allowed.index("nvme_wipe_tokens:") :])
    assert pasted == {"nvme_wipe_tokens": {"n1": {"d0": TOKEN}}}
    assert judge_tokens(pasted["nvme_wipe_tokens"], HOSTS) == []


def test_a_token_of_digits_alone_survives_yaml() -> None:
    token = "0000123412341234"
    (problem,) = refused_drives("n1", HOSTS["n1"], guard(refusal("filesystem", token), tokens=(token,)))
    pasted = yaml.safe_load(problem.allowed[problem.allowed.index("nvme_wipe_tokens:") :])
    assert pasted == {"nvme_wipe_tokens": {"n1": {"d0": token}}}


def test_the_line_for_an_array_has_the_tokens_of_all_its_devices() -> None:
    first, second = "a" * 16, "b" * 16
    refusals = guard(refusal("md", second, OTHER, "r0"), tokens=(first, second))
    (problem,) = refused_drives("n1", HOSTS["n1"], refusals)
    assert (problem.variable, problem.given) == ("kvstrata_drives[r0].devices", OTHER)
    pasted = yaml.safe_load(problem.allowed[problem.allowed.index("nvme_wipe_tokens:") :])
    assert pasted == {"nvme_wipe_tokens": {"n1": {"r0": [first, second]}}}


def test_nothing_refused_is_no_problem() -> None:
    assert refused_drives("n1", HOSTS["n1"], guard()) == []
