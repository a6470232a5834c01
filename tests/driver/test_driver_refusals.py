"""Every reason not to touch a node, each with what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import kvstrata.driver
from kvstrata.driver.decide import decide
from kvstrata.driver.model import Refusal
from kvstrata.paths import PROJECT
from kvstrata.preflight.problem import report
from tests.driver.probes import probe, wanted

OPEN_570 = {"version": "570.133.20", "flavour": "open", "signer": ""}
LOCK = {"file": "/var/lib/dpkg/lock-frontend", "pid": 812, "process": "apt-get", "unit": "apt-daily-upgrade.service"}
NEWER = {"nvidia-driver-cuda": {"version": "590.48.01-1", "held": False}}
HELD = {"nvidia-driver-cuda": {"version": "570.133.20-1", "held": True}}
LIBRARY = {"libnvidia-ml1": {"version": "570.133.20-1", "held": True}}
PINNING = {"nvidia-driver-pinning-570": {"version": "570-1", "held": False}}
OFFERS = {"nvidia-kernel-open-dkms": ["570.133.20-1", "590.48.01-1"]}
MIXED_OFFERS = {**OFFERS, "nvidia-driver-cuda": ["580.95.05-1"], "linux-headers-6.1.0-40-amd64": ["6.1.153-1"]}
KEYRING = {"cuda-keyring": {"version": "1.1-1", "held": False}}

# code, node, what the probe saw besides, what is wanted besides, texts of the message
CASES: list[tuple[str, str, dict[str, Any], dict[str, Any], list[str]]] = [
    ("gpu_count", "l40s", {}, {"gpus": 8}, ["kvstrata_gpus is 8; allowed: 4", "[10de:26b9] Ada"]),
    ("gpu_count", "no-gpu", {}, {"gpus": 1}, ["kvstrata_gpus is 1; allowed: 0", "none"]),
    ("no_driver", "l40s", {}, {"version": "", "install": False}, ["no driver is loaded but nouveau"]),
    (
        "other_version",
        "h100-vm",
        {},
        {"install": False},
        ["nvidia_driver_version is '580.95.05'; allowed: the version that is loaded (580.159.04)"],
    ),
    ("bad_version", "l40s", {}, {"version": "580"}, ["nvidia_driver_version is '580'", 'as "580.95.05"']),
    ("other_branch", "l40s", {}, {"branch": "570"}, ["nvidia_driver_branch is '570'; allowed: 580"]),
    ("container", "l40s", {"container": "podman"}, {}, ["a container (podman)", "its host's"]),
    (
        "unsupported_system",
        "l40s",
        {"os": {"id": "fedora", "version_id": "44"}},
        {},
        ["operating system is 'fedora 44'; allowed: debian 12, ", "rocky 9"],
    ),
    ("unsupported_system", "l40s", {"kernel": {"arch": "ppc64le"}}, {}, ["allowed: x86_64, aarch64"]),
    ("gpu_too_old", "pascal", {"devices": "kepler"}, {}, ["older than Maxwell", "no current driver knows it"]),
    (
        "mixed_gpus",
        "mixed",
        {},
        {},
        ["no one kernel module serves", "[10de:1b38] Pascal", "2bb5] Blackwell"],
    ),
    ("wrong_flavour", "pascal", {}, {"flavour": "open"}, ["nvidia_driver_flavour is 'open'", "has no GSP"]),
    ("wrong_flavour", "gh200", {}, {"flavour": "proprietary"}, ["proprietary modules do not know", "Grace Hopper"]),
    ("branch_too_old", "b200-hgx", {}, {"version": "550.163.01"}, ["allowed: 570 or newer", "[10de:2901] Blackwell"]),
    ("branch_too_old", "l40s", {}, {"version": "550.163.01"}, ["older branches have other packages on debian 12"]),
    ("branch_too_new", "pascal", {}, {"version": "595.91.07"}, ["allowed: 580 or older", "[10de:1b38] Pascal"]),
    (
        "branch_too_new",
        "l40s",
        {},
        {"version": "620.10.01", "flavour": "proprietary"},
        ["allowed: 610 or older for proprietary modules"],
    ),
    ("no_precompiled", "l40s", {}, {"build": "precompiled"}, ["nvidia_driver_build is 'precompiled'; allowed: dkms"]),
    ("wrong_repository", "gh200", {}, {"build": "precompiled"}, ["nvidia_driver_repository is 'nvidia'"]),
    ("wrong_repository", "gh200", {}, {"repository": "distribution"}, ["distribution with precompiled modules"]),
    ("other_source", "l40s", {"packages": KEYRING}, {}, ["cuda-keyring", "apt takes no two"]),
    (
        "locked",
        "l40s",
        {"package_state": {"lock": LOCK}},
        {},
        ["apt-get (pid 812, apt-daily-upgrade.service) holds /var/lib/dpkg/lock-frontend"],
    ),
    (
        "interrupted",
        "l40s",
        {"package_state": {"interrupted": True}},
        {},
        ["dpkg was interrupted", "dpkg --configure -a"],
    ),
    (
        "broken_packages",
        "l40s",
        {"package_state": {"broken": {"mariadb-server": "half-configured"}}},
        {},
        ["mariadb-server (half-configured)", "apt-get --fix-broken install"],
    ),
    (
        "secure_boot",
        "l40s",
        {"secure_boot": {"state": "on"}},
        {},
        ["dkms generate_mok", "mokutil --import", "Enroll"],
    ),
    (
        "secure_boot",
        "gh200",
        {"secure_boot": {"state": "on"}},
        {},
        ["update-secureboot-policy --new-key", "MOK.der", "nvidia_driver_build: precompiled"],
    ),
    ("held_elsewhere", "l40s", {"packages": HELD}, {}, ["nvidia-driver-cuda 570.133.20-1", "apt-mark unhold"]),
    ("held_elsewhere", "l40s", {"packages": LIBRARY}, {}, ["libnvidia-ml1 570.133.20-1", "unhold libnvidia-ml1"]),
    ("pinned_elsewhere", "l40s", {"packages": PINNING}, {}, ["remove nvidia-driver-pinning-570"]),
    ("downgrade", "l40s", {"packages": NEWER}, {}, ["nvidia-driver-cuda 590.48.01-1", "nvidia_driver_allow_downgrade"]),
    (
        "downgrade",
        "l40s",
        {"installed": {"version": "590.48.01", "flavour": "open", "signer": ""}},
        {},
        ["kernel module 590.48.01"],
    ),
    (
        "no_headers",
        "l40s",
        {"candidates": {}},
        {},
        ["running kernel is '6.1.0-40-amd64'", "there is no linux-headers-6.1"],
    ),
    (
        "not_in_repository",
        "l40s",
        {"candidates": MIXED_OFFERS},
        {},
        ["a version of nvidia-kernel-open-dkms that the repository has; it has: 570.133.20, 590.48.01"],
    ),
    (
        "controller",
        "h100-hgx",
        {"boot_id": "ours"},
        {"controller_boot_id": "ours"},
        ["the controller itself", "restart"],
    ),
    (
        "reboot_not_allowed",
        "h100-hgx",
        {},
        {"allow_reboot": False},
        ["allow_reboot is False", "570.133.20 (open)"],
    ),
]
KEPLER = {
    "address": "0000:04:00.0",
    "vendor": "0x10de",
    "device": "0x102d",  # GK210GL [Tesla K80]
    "class": "0x030200",
    "numa_node": 0,
    "driver": "",
    "switch_management": False,
}


def refused(name: str, seen: dict[str, Any], options: dict[str, Any]) -> tuple[Refusal, ...]:
    changes = {**seen, "devices": [KEPLER]} if seen.get("devices") == "kepler" else seen
    node = probe(name, **changes)
    return decide(wanted(node, **options), node).refusals


@pytest.mark.parametrize(("code", "name", "seen", "options", "texts"), CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES])
def test_a_node_is_refused_with_the_reason(
    code: str, name: str, seen: dict[str, Any], options: dict[str, Any], texts: list[str]
) -> None:
    found = [refusal for refusal in refused(name, seen, options) if refusal.code == code]
    assert found, refused(name, seen, options)
    message = report([refusal.problem("gpu1") for refusal in found])
    assert "nothing was changed on any host" in message
    for text in texts:
        assert text in message


def codes_of_the_source() -> set[str]:
    sources = "".join(path.read_text() for path in Path(kvstrata.driver.__file__).parent.glob("*.py"))
    return set(re.findall(r'(?:Refusal\(|_branch\(wanted, )\s*"(\w+)"', sources))


def test_every_reason_in_the_source_has_its_case_here() -> None:
    assert codes_of_the_source() == {case[0] for case in CASES}


def test_every_reason_is_explained_in_the_docs() -> None:
    page = (PROJECT / "docs" / "driver.md").read_text()
    assert {code for code in codes_of_the_source() if f"| `{code}` |" not in page} == set()


def test_all_that_is_wrong_with_a_node_is_said_at_once() -> None:
    state = {"broken": {"a": "half-installed"}, "interrupted": True, "lock": LOCK}
    found = refused("pascal", {"package_state": state, "packages": NEWER}, {"version": "595.91.07", "gpus": 8})
    assert {refusal.code for refusal in found} == {
        "gpu_count",
        "broken_packages",
        "interrupted",
        "locked",
        "branch_too_new",
    }


def test_a_downgrade_can_be_allowed() -> None:
    node = probe("l40s", packages=NEWER)
    plan = decide(wanted(node, allow_downgrade=True), node)
    assert plan.refusals == ()
    assert "nvidia-driver-cuda=580.95.05-*" in plan.install


def test_a_downgrade_is_seen_under_the_names_of_another_branch() -> None:
    newer = {"libnvidia-compute": {"version": "590.48.01-0ubuntu1", "held": False}}
    assert [r.code for r in refused("gh200", {"packages": newer}, {})] == ["downgrade"]


def test_the_container_toolkit_is_no_driver() -> None:
    toolkit = {"nvidia-container-toolkit": {"version": "999.1.0-1", "held": True}}
    assert refused("l40s", {"packages": toolkit}, {}) == ()


@pytest.mark.parametrize(
    ("seen", "options"),
    [
        ({"secure_boot": {"state": "on", "mok_enrolled": True}}, {}),
        ({"secure_boot": {"state": "on"}}, {"build": "precompiled", "repository": "distribution"}),
        ({"secure_boot": {"state": "off"}}, {}),
        ({"secure_boot": {"state": "unsupported"}}, {}),
        (
            {"secure_boot": {"state": "on"}, "loaded": {"version": "580.95.05", "flavour": "open"}},
            {},
        ),
    ],
    ids=["enrolled key", "Canonical's modules", "off", "no UEFI", "loaded already"],
)
def test_secure_boot_is_no_reason_where_the_module_will_load(seen: dict[str, Any], options: dict[str, Any]) -> None:
    assert refused("gh200", seen, options) == ()


def test_ones_own_hold_and_a_fitting_pin_are_no_reasons() -> None:
    own = {"version": "570.133.20", "holds": ["nvidia-driver-cuda"]}
    assert refused("l40s", {"packages": HELD, "own": own}, {}) == ()
    for name in ("nvidia-driver-pinning-580", "nvidia-driver-pinning-580.95.05"):
        assert refused("l40s", {"packages": {name: {"version": "1", "held": False}}}, {}) == ()


def test_somebodys_hold_at_the_wanted_version_is_no_reason() -> None:
    held = {"nvidia-driver-cuda": {"version": "580.95.05-1", "held": True}}
    assert refused("l40s", {"packages": held}, {}) == ()


def test_the_controller_may_be_a_node_where_no_restart_is_needed() -> None:
    options = {"controller_boot_id": "ours", "version": "570.133.20"}
    assert refused("h100-hgx", {"boot_id": "ours"}, options) == ()
