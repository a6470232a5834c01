"""The id of a release, and preparing one."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kvstrata.artifacts import binary, cli, release, wheelhouse
from kvstrata.artifacts.lock import LockError, Wheelhouse
from kvstrata.paths import PROJECT


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a checkout with a node package and something beside it."""
    project = tmp_path / "project"
    for name in ("node/a.py", "node/deep/b.py", "node/notes.txt", "lab/c.py", "__init__.py"):
        path = project / "src" / "kvstrata" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\n")
    return project


@pytest.fixture
def house(tmp_path: Path) -> Wheelhouse:
    lock = tmp_path / "lock.txt"
    lock.write_text("a==1 --hash=sha256:00\n")
    return Wheelhouse("cpu", lock, "3.11", (), None)


CODE = "src/kvstrata"


def test_the_id_is_the_wheelhouses_name_and_a_digest(house: Wheelhouse, project: Path) -> None:
    name, _, digits = release.release_id(house, project).partition("-")
    assert name == "cpu"
    assert len(digits) == 12
    assert release.release_id(house, project) == f"cpu-{digits}"


@pytest.mark.parametrize("changed", ["node/a.py", "node/deep/b.py", "__init__.py", "node/new.py"])
def test_a_change_of_what_runs_on_nodes_is_another_release(house: Wheelhouse, project: Path, changed: str) -> None:
    before = release.release_id(house, project)
    (project / CODE / changed).write_text("# changed\n")
    assert release.release_id(house, project) != before


def test_a_file_that_moves_is_another_release(house: Wheelhouse, project: Path) -> None:
    before = release.release_id(house, project)
    (project / CODE / "node/a.py").rename(project / CODE / "node/z.py")
    assert release.release_id(house, project) != before


def test_a_change_of_the_lock_is_another_release(house: Wheelhouse, project: Path) -> None:
    before = release.release_id(house, project)
    house.lock.write_text("a==2 --hash=sha256:00\n")
    assert release.release_id(house, project) != before


@pytest.mark.parametrize("changed", ["lab/c.py", "node/notes.txt", "../../README.md"])
def test_a_change_of_anything_else_is_the_same_release(house: Wheelhouse, project: Path, changed: str) -> None:
    before = release.release_id(house, project)
    (project / CODE / changed).write_text("changed\n")
    assert release.release_id(house, project) == before


def test_what_nodes_run_of_this_project_is_part_of_the_id() -> None:
    sources = {path.relative_to(PROJECT).as_posix() for path in release.node_sources(PROJECT)}
    assert {"src/kvstrata/__init__.py", "src/kvstrata/node/lmcache_server.py"} <= sources


def test_a_release_is_built_once_and_again_only_when_it_changes(
    house: Wheelhouse, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Path] = []

    def build(command: Sequence[str], *, check: bool) -> None:
        assert check
        output = Path(command[command.index("--out-dir") + 1])
        output.mkdir(parents=True)
        (output / "kvstrata-0.1.0-py3-none-any.whl").touch()
        built.append(output)

    cache = tmp_path / "cache"
    wheels = wheelhouse.folder(house, cache)
    wheels.mkdir(parents=True)
    (wheels / wheelhouse.COMPLETE).touch()
    monkeypatch.setattr(subprocess, "run", build)

    first = release.prepare(house, project, cache)
    assert first.changed
    assert (first.wheels, first.lock, first.python) == (str(wheels), str(house.lock), "3.11")
    assert first.package == str(cache / "package" / first.id / "kvstrata-0.1.0-py3-none-any.whl")
    again = release.prepare(house, project, cache)
    assert (again.changed, again.id, len(built)) == (False, first.id, 1)

    (project / CODE / "node/a.py").write_text("# changed\n")
    assert release.prepare(house, project, cache).changed
    assert len(built) == 2


# --- the command line, as Ansible calls it ---


def test_the_command_prints_the_binary_as_json(tmp_path: Path) -> None:
    local = tmp_path / "kvrocks"
    local.write_bytes(b"mine")
    result = CliRunner().invoke(cli.app, ["kvrocks", "--source", str(local), "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["path"] == str(local)


def test_an_unknown_wheelhouse_is_exit_1_with_the_known_ones() -> None:
    result = CliRunner().invoke(cli.app, ["release", "rocm", "--json"])
    assert result.exit_code == 1
    assert "runtime_wheelhouse is 'rocm'; artifacts.lock.yml has: " in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("error", [binary.ChecksumError("wrong sum"), LockError("wrong lock")])
def test_what_cannot_be_trusted_is_exit_1_with_the_reason(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(binary, "resolve", fail)
    result = CliRunner().invoke(cli.app, ["kvrocks", "--json"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"kvstrata artifacts: {error}\n"
