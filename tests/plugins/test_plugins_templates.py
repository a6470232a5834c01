"""Filters and lookups, as templates see them: through Ansible's own templar."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import filter_loader, lookup_loader
from ansible.template import Templar, trust_as_template

from kvstrata.artifacts import release
from kvstrata.artifacts.lock import read_lock
from kvstrata.artifacts.wheelhouse import digest
from kvstrata.paths import PROJECT

DRIVE = {"name": "d0", "device": "/dev/nvme0n1", "store_gib": 1}


@functools.cache
def _with_our_plugins() -> None:
    filter_loader.add_directory(str(PROJECT / "plugins" / "filter"))
    lookup_loader.add_directory(str(PROJECT / "plugins" / "lookup"))


def template(expression: str, **variables: Any) -> Any:
    _with_our_plugins()
    templar = Templar(loader=DataLoader(), variables=variables)
    return templar.template(trust_as_template("{{ " + expression + " }}"))


# --- filters ---


def test_a_port_is_told_with_its_variable_and_its_unit() -> None:
    entry = {"drive": "d0", "port": 6666}
    assert template("entry | kvstrata_port('kvrocks_first_port', 'kvrocks@{drive}.service')", entry=entry) == {
        "port": 6666,
        "variable": "kvrocks_first_port",
        "unit": "kvrocks@d0.service",
    }


def test_a_drive_gets_its_mount_point_and_the_name_that_systemd_wants_for_it() -> None:
    assert template("drive | kvstrata_with_mount", drive=DRIVE) == {
        **DRIVE,
        "mount": "/var/lib/kvstrata/drives/d0",
        "fstype": "xfs",
        "unit": "var-lib-kvstrata-drives-d0.mount",
    }


@pytest.mark.parametrize("name", ["d", "d0", "nvme_0", "eightchr"])
def test_the_mount_unit_of_any_drive_that_preflight_accepts_needs_no_escaping(name: str) -> None:
    drive = template("drive | kvstrata_with_mount", drive={**DRIVE, "name": name})
    # systemd.unit(5): "/" becomes "-", so no other "-" may be there.
    assert "-" not in drive["mount"]
    assert drive["unit"].removesuffix(".mount").replace("-", "/") == drive["mount"].strip("/")


def test_a_mount_is_told_with_its_file_system() -> None:
    expression = "drive | kvstrata_with_mount | kvstrata_mount_of"
    assert template(expression, drive=DRIVE) == {
        "path": "/var/lib/kvstrata/drives/d0",
        "fstype": "xfs",
        "device": "/dev/nvme0n1",
        "devices": [],
    }


def test_hardening_in_a_template_is_the_same_and_refuses_a_relative_path() -> None:
    assert "ReadWritePaths=/a" in template("['/a'] | kvstrata_hardening").splitlines()
    assert "PrivateDevices=yes" not in template("['/a'] | kvstrata_hardening(devices=true)").splitlines()
    with pytest.raises(AnsibleError, match="'var/lib' of a unit is not absolute"):
        template("['var/lib'] | kvstrata_hardening")


@pytest.mark.parametrize(("version", "steps"), [("252", False), ("255", True)])
def test_the_restarts_in_a_template_depend_on_systemd(version: str, steps: bool) -> None:
    assert ("RestartSteps=6" in template("version | kvstrata_restart_backoff", version=version)) is steps


# --- lookups ---


def test_the_lookup_of_a_release_tells_its_id_its_wheels_and_its_python() -> None:
    cpu = read_lock(PROJECT / "artifacts.lock.yml").wheelhouse("cpu")
    assert template("lookup('kvstrata_release', 'cpu')") == release.release_id(cpu, PROJECT)
    assert template("lookup('kvstrata_release', 'cpu', kind='wheels')") == digest(cpu)
    assert template("lookup('kvstrata_release', 'cpu', kind='python')") == "3.11"


def test_the_lookup_of_an_unknown_wheelhouse_fails_with_the_known_ones() -> None:
    with pytest.raises(AnsibleError, match=r"is 'rocm'; artifacts\.lock\.yml has: .*cpu"):
        template("lookup('kvstrata_release', 'rocm')")


def test_the_lookup_of_kvrocks_finds_a_local_file(tmp_path: Path) -> None:
    binary = tmp_path / "kvrocks"
    binary.write_bytes(b"mine")
    found = template("lookup('kvstrata_kvrocks', path)", path=str(binary))
    assert (found["path"], found["sha256"]) == (str(binary), hashlib.sha256(b"mine").hexdigest())


def test_the_lookup_of_kvrocks_says_why_there_is_none(tmp_path: Path) -> None:
    if yaml.safe_load((PROJECT / "artifacts.lock.yml").read_text())["kvrocks"]["sha256"] is not None:
        pytest.skip("the lock names a download, which a unit test does not make")
    found = template("lookup('kvstrata_kvrocks', path)", path=str(tmp_path / "none"))
    assert found["path"] is None
    assert found["reason"].startswith(f"{tmp_path / 'none'} does not exist")
