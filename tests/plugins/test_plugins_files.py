"""kvstrata_files: several small files in one task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.plugins.modules import run_module


def place(tmp_path: Path, *files: dict[str, Any], check_mode: bool = False) -> dict[str, Any]:
    given = [{**file, "path": str(tmp_path / file["path"])} for file in files]
    return run_module("kvstrata_files", {"files": given}, check_mode=check_mode)


def test_files_are_placed_with_their_folders_and_modes(tmp_path: Path) -> None:
    result = place(tmp_path, {"path": "a/b.conf", "content": "b\n"}, {"path": "c", "content": "c", "mode": "0600"})
    assert result["changed_paths"] == [str(tmp_path / "a/b.conf"), str(tmp_path / "c")]
    assert (tmp_path / "a/b.conf").read_text() == "b\n"
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a/b.conf", "c")] == [0o644, 0o600]


def test_only_what_differs_is_placed_again(tmp_path: Path) -> None:
    files = [{"path": "a", "content": "1"}, {"path": "b", "content": "1"}]
    place(tmp_path, *files)
    assert place(tmp_path, *files)["changed"] is False
    result = place(tmp_path, files[0], {"path": "b", "content": "2"})
    assert result["changed_paths"] == [str(tmp_path / "b")]
    assert [(entry["before"], entry["after"]) for entry in result["diff"]] == [("1", "2")]


def test_a_mode_that_somebody_changed_is_put_right(tmp_path: Path) -> None:
    place(tmp_path, {"path": "a", "content": "1"})
    (tmp_path / "a").chmod(0o600)
    assert place(tmp_path, {"path": "a", "content": "1"})["changed"] is True
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def test_an_empty_file_is_removed_and_one_without_content_is_left_alone(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text("old")
    files = [{"path": "a", "content": ""}, {"path": "b"}, {"path": "c", "content": ""}]
    assert place(tmp_path, *files)["changed_paths"] == [str(tmp_path / "a")]
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    assert place(tmp_path, *files)["changed"] is False


def test_check_mode_says_what_would_change_and_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    result = place(tmp_path, {"path": "a", "content": ""}, {"path": "d/b", "content": "new"}, check_mode=True)
    assert result["changed_paths"] == [str(tmp_path / "a"), str(tmp_path / "d/b")]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_relative_path_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # Ansible makes paths absolute only where they begin with "~" or "$".
    result = run_module("kvstrata_files", {"files": [{"path": "etc/x", "content": "x"}]}, check_mode=True)
    assert "files[].path is 'etc/x'; allowed: an absolute path" in result["msg"]
