"""Kept runs: one file for each, the newest ones stay, and nothing else is touched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kvstrata.verify import keep
from kvstrata.verify.document import Document
from kvstrata.verify.keep import UnreadableError
from kvstrata.verify.result import could_not_check


def document(second: int, site: str = "test") -> Document:
    made = could_not_check("x", "why")
    made["started_at"] = f"2026-11-24T20:00:{second:02}+00:00"
    made["site"] = site
    return made


def names(state_dir: Path) -> list[str]:
    return sorted(path.name for path in (state_dir / "verify").iterdir())


def test_a_run_is_kept_under_its_time(tmp_path: Path) -> None:
    path = keep.keep(tmp_path / "state", document(7), 50)
    assert path == tmp_path / "state" / "verify" / "20261124T200007Z.json"
    assert keep.load(path) == document(7)
    assert names(tmp_path / "state") == [path.name]


def test_two_runs_of_one_second_are_two_files_in_order(tmp_path: Path) -> None:
    paths = [keep.keep(tmp_path, document(7), 50) for _ in range(11)]
    assert keep.runs(tmp_path) == paths
    assert paths[1].name == "20261124T200007Z-2.json"


def test_a_time_of_another_zone_is_told_in_utc(tmp_path: Path) -> None:
    made = document(7)
    made["started_at"] = "2026-11-24T22:00:07+02:00"
    assert keep.keep(tmp_path, made, 50).name == "20261124T200007Z.json"


def test_the_newest_stay(tmp_path: Path) -> None:
    for second in range(5):
        keep.keep(tmp_path, document(second), 3)
    assert names(tmp_path) == [f"20261124T20000{second}Z.json" for second in (2, 3, 4)]
    keep.keep(tmp_path, document(5), 1)
    assert names(tmp_path) == ["20261124T200005Z.json"]


def test_the_run_itself_stays_even_where_the_clock_was_set_back(tmp_path: Path) -> None:
    for second in (5, 6):
        keep.keep(tmp_path, document(second), 2)
    assert keep.keep(tmp_path, document(1), 2).exists()
    assert names(tmp_path) == ["20261124T200001Z.json", "20261124T200006Z.json"]


def test_nothing_is_deleted_that_is_no_kept_run(tmp_path: Path) -> None:
    folder = tmp_path / "verify"
    folder.mkdir()
    text = json.dumps(document(0))
    for name in ("notes.json", "20260101T000000Z.json.bak", "x20260101T000000Z.json", "20260101T000000.json"):
        (folder / name).write_text(text)
    (folder / "20260101T000001Z.json").write_text("my notes")
    (folder / "20260101T000002Z.json").write_text('{"schema": 1}')
    (folder / "20260101T000003Z.json").mkdir()
    (tmp_path / "elsewhere.json").write_text(text)
    (folder / "20260101T000004Z.json").symlink_to(tmp_path / "elsewhere.json")
    (folder / "20260101T000005Z.json").write_text(text)
    before = set(names(tmp_path))
    keep.keep(tmp_path, document(1), 1)
    assert before - set(names(tmp_path)) == {"20260101T000005Z.json"}
    assert (tmp_path / "elsewhere.json").exists()


def test_runs_of_an_older_schema_are_rotated_too(tmp_path: Path) -> None:
    (tmp_path / "verify").mkdir()
    (tmp_path / "verify" / "20250101T000000Z.json").write_text('{"schema": 0, "verdict": "ok", "checks": []}')
    keep.keep(tmp_path, document(1), 1)
    assert names(tmp_path) == ["20261124T200001Z.json"]


def test_the_last_run_is_the_newest_of_the_site_that_can_be_read(tmp_path: Path) -> None:
    assert keep.last(tmp_path, "test") is None
    path = keep.keep(tmp_path, document(1), 50)
    keep.keep(tmp_path, document(2, site="another"), 50)
    (tmp_path / "verify" / "20261124T200003Z.json").write_text('{"schema": 9}')
    assert keep.last(tmp_path, "test") == (path, document(1))


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "No such file"), ("{", "no JSON"), ("[]", "document is no object"), ('{"schema": 9}', "schema is 9")],
)
def test_a_file_that_is_no_document_is_refused_by_name(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "a.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UnreadableError, match=said) as caught:
        keep.load(path)
    assert str(path) in str(caught.value)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "verify").write_text("in the way")
    with pytest.raises(OSError, match="verify"):
        keep.keep(tmp_path, document(1), 50)


def test_a_run_of_the_first_schema_is_read_as_one_without_measurements(tmp_path: Path) -> None:
    old = {**document(1), "schema": 1}
    del old["measured"]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(old))
    assert keep.load(path) == {**document(1), "measured": {}}
