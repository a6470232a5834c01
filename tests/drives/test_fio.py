"""What fio is asked, what of its answer is kept, and which files may stand in for the device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import kvstrata_fio as fio

MIB = 1 << 20


def answer(**changes: Any) -> str:
    """What fio 3 prints for the three patterns, as far as it is read, behind a line that is no JSON."""
    read = {
        "total_ios": 4242,
        "bw_bytes": 6543210987,
        "iops": 6240.4,
        "clat_ns": {"percentile": {"99.000000": 8716288}},
    }
    jobs = [{"jobname": name, "error": 0, "read": {**read, **changes}} for name in fio.PATTERNS]
    return "note: both iodepth >= 1 and synchronous I/O\n" + json.dumps({"fio version": "fio-3.33", "jobs": jobs})


def test_nothing_that_fio_is_told_lets_it_write() -> None:
    argv = fio.command(["/dev/x"], 5)
    assert argv[:2] == ["fio", "--readonly"]
    assert "--allow_file_create=0" in argv
    assert [word for word in argv if word.startswith("--rw=")] == ["--rw=read", "--rw=randread", "--rw=randread"]


def test_each_pattern_takes_the_seconds_given_one_after_the_other() -> None:
    argv = fio.command(["/dev/x"], 7)
    assert {"--runtime=7", "--time_based", "--direct=1", "--iodepth=32"} <= set(argv)
    assert argv.count("--stonewall") == len(fio.PATTERNS)
    assert [word for word in argv if word.startswith("--bs=")] == ["--bs=1m", "--bs=4k", "--bs=128k"]


def test_files_are_given_to_fio_as_one_name() -> None:
    argv = fio.command(["/a", "/dev/disk/by-id/x:1"], 5)
    assert "--filename=/a:/dev/disk/by-id/x\\:1" in argv


def test_the_answer_is_kept_in_megabytes_and_microseconds() -> None:
    result = fio.parse(answer())
    assert result["fio"] == "fio-3.33"
    assert result["rand_4k"] == {"mb_per_s": 6543.2, "iops": 6240, "p99_us": 8716.3}
    assert set(result) == {"fio", *fio.PATTERNS}


def test_a_pattern_that_read_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="read nothing in seq_1m"):
        fio.parse(answer(total_ios=0))


def test_a_pattern_that_failed_is_an_error() -> None:
    with pytest.raises(ValueError, match="did not finish seq_1m: error 5"):
        fio.parse(answer().replace('"error": 0', '"error": 5'))


def test_an_answer_without_json_is_an_error_that_quotes_it() -> None:
    with pytest.raises(ValueError, match=r"seq_1m.*no such engine"):
        fio.parse("fio: no such engine")


def fill(path: Path, size: int) -> None:
    path.write_bytes(b"x" * size)


def test_only_large_files_without_holes_are_read(tmp_path: Path) -> None:
    fill(tmp_path / "blob", 16 * MIB)
    fill(tmp_path / "small", 15 * MIB)
    with (tmp_path / "sparse").open("wb") as stream:
        stream.truncate(64 * MIB)
    (tmp_path / "link").symlink_to(tmp_path / "blob")
    data = fio.written_data(str(tmp_path))
    assert data == fio.Data((str(tmp_path / "blob"),), 16 * MIB)
    assert not data.enough


def test_the_largest_files_come_first_and_not_all_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fio, "_MOST_FILES", 2)
    (tmp_path / "below").mkdir()
    for name, size in (("a", 16), ("below/b", 18), ("c", 17)):
        fill(tmp_path / name, size * MIB)
    data = fio.written_data(str(tmp_path))
    assert [Path(path).name for path in data.paths] == ["b", "c"]
    assert data.total == 35 * MIB


def test_a_gib_is_enough() -> None:
    assert fio.Data(("/a",), 1 << 30).enough
    assert not fio.Data(("/a",), (1 << 30) - 1).enough


def entry(**changes: Any) -> dict[str, Any]:
    device = {"path": "/dev/x", "serial": "S1", "wwid": "eui.1", "size_bytes": 1, "lba_bytes": 512}
    return {"devices": [{**device, **changes}], "uuid": "u"}


def test_a_drive_is_the_same_with_another_file_system_and_another_with_another_serial_or_block_size() -> None:
    assert fio.identity(entry()) == fio.identity({**entry(), "uuid": "v"})
    assert fio.identity(entry()) != fio.identity(entry(serial="S2"))
    assert fio.identity(entry()) != fio.identity(entry(lba_bytes=4096))


def test_a_drive_that_tells_nothing_of_itself_is_known_by_its_name() -> None:
    assert fio.identity(entry(path="/dev/y")) == fio.identity(entry())
    nameless = {"serial": "", "wwid": ""}
    assert fio.identity(entry(**nameless, path="/dev/y")) != fio.identity(entry(**nameless))
