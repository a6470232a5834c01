"""kvstrata_hold beside programs that answer as dpkg and rpm do."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from kvstrata.paths import PROJECT
from tests.plugins.modules import run_module

sys.path.insert(0, str(PROJECT / "plugins" / "module_utils"))
import kvstrata_packages as packages  # type: ignore[import-not-found]

# Keeps dpkg's selections in a file, as `name<TAB>want<TAB>status`.
DPKG = """#!/bin/sh
case "$(basename "$0")" in
  dpkg-query) cat "{state}" ;;
  dpkg) while read -r name want; do sed -i "s/^$name\\t[a-z]*\\t/$name\\t$want\\t/" "{state}"; done ;;
esac
"""
INSTALLED = {"linux-image-6.1.0-25-amd64": "install", "linux-image-amd64": "install", "bash": "install"}


class Apt:
    """A machine with dpkg."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state = folder, folder / "state"
        (folder / "bin").mkdir()
        for name in ("dpkg", "dpkg-query"):
            (folder / "bin" / name).write_text(DPKG.format(state=self.state))
            (folder / "bin" / name).chmod(0o755)
        self.write(INSTALLED)

    def write(self, wants: dict[str, str]) -> None:
        lines = [f"{name}\t{want}\tinstalled\n" for name, want in wants.items()]
        self.state.write_text("".join([*lines, "linux-image-5.10\tdeinstall\tconfig-files\n"]))

    def held(self) -> set[str]:
        rows = [line.split("\t") for line in self.state.read_text().splitlines()]
        return {name for name, want, _ in rows if want == "hold"}

    def hold(self, *patterns: str, owner: str = "host", check_mode: bool = False) -> dict[str, Any]:
        args = {"owner": owner, "packages": list(patterns), "manager": "apt", "records": str(self.folder / "records")}
        return run_module("kvstrata_hold", args, path=self.folder / "bin", check_mode=check_mode)


@pytest.fixture
def apt(tmp_path: Path) -> Apt:
    return Apt(tmp_path)


def test_what_is_installed_and_matches_is_held_once(apt: Apt) -> None:
    result = apt.hold("linux-image-*")
    assert (result["changed"], result["held"]) == (True, ["linux-image-6.1.0-25-amd64", "linux-image-amd64"])
    assert apt.held() == {"linux-image-6.1.0-25-amd64", "linux-image-amd64"}
    assert apt.hold("linux-image-*")["changed"] is False


def test_what_is_no_longer_to_be_held_is_released(apt: Apt) -> None:
    apt.hold("linux-image-*")
    assert apt.hold()["released"] == ["linux-image-6.1.0-25-amd64", "linux-image-amd64"]
    assert apt.held() == set()
    assert apt.hold()["changed"] is False


def test_what_somebody_else_holds_stays_theirs(apt: Apt) -> None:
    apt.write({**INSTALLED, "linux-image-amd64": "hold", "bash": "hold"})
    assert apt.hold("linux-image-*")["held"] == ["linux-image-6.1.0-25-amd64"]
    apt.hold()
    assert apt.held() == {"linux-image-amd64", "bash"}


def test_two_owners_do_not_release_each_others_packages(apt: Apt) -> None:
    apt.hold("linux-image-*")
    apt.hold("bash", owner="nvidia_driver")
    apt.hold(owner="nvidia_driver")
    assert apt.held() == {"linux-image-6.1.0-25-amd64", "linux-image-amd64"}


def test_where_nothing_is_to_be_held_nothing_is_written(apt: Apt) -> None:
    assert apt.hold()["changed"] is False
    assert apt.hold("nothing-*")["changed"] is False
    assert not (apt.folder / "records").exists()


def test_check_mode_holds_nothing(apt: Apt) -> None:
    result = apt.hold("linux-image-*", check_mode=True)
    assert (result["changed"], len(result["held"])) == (True, 2)
    assert apt.held() == set()
    assert not (apt.folder / "records").exists()


def test_a_package_of_another_architecture_is_matched_by_its_name() -> None:
    assert packages.matching(["libnvidia-ml1:i386", "bash"], ["libnvidia-ml1"]) == ["libnvidia-ml1:i386"]


# --- dnf ---


class Dnf:
    """A machine with rpm."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.list = folder, folder / "versionlock.list"
        (folder / "bin").mkdir()
        rows = [
            ("kernel", "0:5.14.0-427.el9"),
            ("kernel-core", "0:5.14.0-427.el9"),
            ("kernel-core", "0:5.14.0-503.el9"),
        ]
        text = "".join(f"{name}\\t{name}-{version}.*\\n" for name, version in [*rows, ("bash", "0:5.1.8-9.el9")])
        (folder / "bin" / "rpm").write_text(f"#!/bin/sh\nprintf '{text}'\n")
        (folder / "bin" / "rpm").chmod(0o755)

    def hold(self, *patterns: str, owner: str = "host", check_mode: bool = False) -> dict[str, Any]:
        args = {"owner": owner, "packages": list(patterns), "manager": "dnf", "versionlock": str(self.list)}
        return run_module("kvstrata_hold", args, path=self.folder / "bin", check_mode=check_mode)


def test_every_installed_version_is_locked_and_other_lines_stay(tmp_path: Path) -> None:
    dnf = Dnf(tmp_path)
    dnf.list.write_text("# mine\nbash-0:5.1.8-9.el9.*\n")
    assert dnf.hold("kernel", "kernel-core")["changed"] is True
    assert dnf.list.read_text().splitlines() == [
        *("# mine", "bash-0:5.1.8-9.el9.*", "# kvstrata host: begin", "kernel-0:5.14.0-427.el9.*"),
        *("kernel-core-0:5.14.0-427.el9.*", "kernel-core-0:5.14.0-503.el9.*", "# kvstrata host: end"),
    ]
    assert dnf.hold("kernel", "kernel-core")["changed"] is False


def test_what_is_released_leaves_the_list_as_it_was(tmp_path: Path) -> None:
    dnf = Dnf(tmp_path)
    dnf.list.write_text("# mine\n")
    dnf.hold("kernel")
    dnf.hold("bash", owner="nvidia_driver")
    assert dnf.hold()["released"] == ["# kvstrata host: begin", "kernel-0:5.14.0-427.el9.*", "# kvstrata host: end"]
    assert "bash-0:5.1.8-9.el9.*" in dnf.list.read_text()
    dnf.hold(owner="nvidia_driver")
    assert dnf.list.read_text() == "# mine\n"


def test_without_a_list_and_with_nothing_to_lock_none_is_made(tmp_path: Path) -> None:
    dnf = Dnf(tmp_path)
    assert dnf.hold()["changed"] is False
    assert dnf.hold("kernel", check_mode=True)["changed"] is True
    assert not dnf.list.exists()


@pytest.mark.skipif(not Path("/usr/bin/dpkg-query").exists(), reason="NOT CHECKED: this machine has no dpkg")
def test_the_real_dpkg_answers_in_the_form_that_is_read(tmp_path: Path) -> None:
    result = run_module(
        "kvstrata_hold",
        {"owner": "test", "packages": ["dpkg"], "manager": "apt", "records": str(tmp_path)},
        check_mode=True,
    )
    assert result["held"] == ["dpkg"]
