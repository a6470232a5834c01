"""kvstrata_package_hold with an apt-mark and a dpkg-query of our own: files stand for the node's state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.plugins.modules import run_module

APT_MARK = """#!/bin/sh
state="{state}"
case "$1" in
showhold) cat "$state" ;;
hold) shift; for name; do echo "$name" >>"$state"; done ;;
unhold) shift; for name; do sed -i "/^$name\\$/d" "$state"; done ;;
esac
"""
DPKG_QUERY = """#!/bin/sh
for name; do :; done
case " nvidia-driver-cuda nvlsm " in
*" $name "*) printf 'install ok installed' ;;
*) exit 1 ;;
esac
"""


@pytest.fixture
def node(tmp_path: Path) -> Path:
    for name, script in (("apt-mark", APT_MARK.format(state=tmp_path / "held")), ("dpkg-query", DPKG_QUERY)):
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "held").write_text("")
    return tmp_path


def run(node: Path, check_mode: bool = False, **args: Any) -> dict[str, Any]:
    args = {"state_file": str(node / "etc" / "state.json"), **args}
    return run_module("kvstrata_package_hold", args, check_mode=check_mode, path=node)


def held(node: Path) -> list[str]:
    return (node / "held").read_text().split()


def test_installed_packages_are_held_once_and_written_down(node: Path) -> None:
    wanted = ["nvidia-driver-cuda", "nvlsm", "nvidia-persistenced"]
    assert run(node, hold=wanted, version="580.95.05")["changed"] is True
    # nvidia-persistenced is not installed.
    assert held(node) == ["nvidia-driver-cuda", "nvlsm"]
    text = (node / "etc" / "state.json").read_text()
    assert text == '{"holds": ["nvidia-driver-cuda", "nvlsm"], "version": "580.95.05"}\n'
    assert run(node, hold=wanted, version="580.95.05")["changed"] is False
    assert held(node) == ["nvidia-driver-cuda", "nvlsm"]


def test_packages_are_let_go_where_they_are_held(node: Path) -> None:
    (node / "held").write_text("nvidia-driver-cuda\nlinux-image-amd64\n")
    assert run(node, release=["nvidia-driver-cuda", "nvlsm"])["released"] == ["nvidia-driver-cuda"]
    assert held(node) == ["linux-image-amd64"]
    assert run(node, release=["nvidia-driver-cuda", "nvlsm"])["changed"] is False
    assert not (node / "etc").exists()


def test_check_mode_says_what_it_would_do_and_does_nothing(node: Path) -> None:
    (node / "held").write_text("nvlsm\n")
    result = run(node, check_mode=True, hold=["nvidia-driver-cuda"], release=["nvlsm"], version="1.2")
    assert (result["changed"], result["held"], result["released"]) == (True, ["nvidia-driver-cuda"], ["nvlsm"])
    assert held(node) == ["nvlsm"]
    assert not (node / "etc").exists()
