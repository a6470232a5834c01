"""The program that reads drives on a node, on files that stand for a drive."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kvstrata.verify.layers.host import onnode, speed
from kvstrata.verify.layers.host.onnode import read_drives

MIB = 1 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder on a file system that can be read past the page cache."""
    probe = tmp_path / "probe"
    probe.write_bytes(bytes(4096))
    try:
        os.close(read_drives.opened(str(probe)))
    except OSError as error:
        pytest.skip(f"that the reading program reads is not proven: no direct reads in {tmp_path} ({error.strerror})")
    probe.unlink()
    return tmp_path


def written(path: Path, mebibytes: int) -> Path:
    path.write_bytes(os.urandom(MIB) * mebibytes)
    return path


def run(**drives: Any) -> dict[str, Any]:
    argv = onnode.command(read_drives, drives)
    done = subprocess.run([sys.executable, *argv[1:]], capture_output=True, text=True, check=True, timeout=60)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def drive(device: Path, mount: Path, written: bool = False) -> dict[str, Any]:
    return {"device": str(device), "mount": str(mount), "number": "0:0", "written": written}


def test_a_device_is_read_in_spans_and_not_changed(folder: Path) -> None:
    device = written(folder / "device", 70)
    before = device.read_bytes()
    found = run(d0=drive(device, folder))["d0"]
    assert [span["bytes"] for span in found["spans"]] == [64 * MIB] * 4
    assert (found["from"], found["error"]) == ("device", "")
    assert sum(span["seconds"] for span in found["spans"]) <= found["seconds"]
    assert speed.reading(found).best > 0
    assert device.read_bytes() == before


def test_files_are_read_where_enough_is_written(folder: Path) -> None:
    device = written(folder / "device", 1)
    mount = folder / "mount"
    mount.mkdir()
    for index in range(3):
        written(mount / f"blob{index}", 24)
    # Neither a file with holes nor a small one tells how fast the drive reads.
    (mount / "holes").touch()
    os.truncate(mount / "holes", 1 << 30)
    written(mount / "small", 1)
    assert {Path(path).name: size for path, size in read_drives.written_files(str(mount))} == {
        "blob0": 24,
        "blob1": 24,
        "blob2": 24,
    }
    assert run(d0=drive(device, mount, written=True))["d0"]["from"] == "files"
    assert run(d0=drive(device, mount))["d0"]["from"] == "device"
    (mount / "blob2").unlink()
    assert run(d0=drive(device, mount, written=True))["d0"]["from"] == "device"


def test_a_drive_that_is_gone_costs_the_others_nothing(folder: Path) -> None:
    device = written(folder / "device", 2)
    found = run(d0=drive(folder / "gone", folder), d1=drive(device, folder))
    assert found["d0"] == {"spans": [], "error": "No such file or directory"}
    # Two MiB are all there is, read once for each of the spans.
    assert [span["bytes"] for span in found["d1"]["spans"]] == [8 * MIB]


def test_reading_ends_in_time_on_a_slow_drive() -> None:
    ended, failure = read_drives.read([(-1, 0)] * 8, deadline=0.0)
    assert (ended, failure) == ([], "")
    ended, failure = read_drives.read([(-1, 0)] * 8, deadline=float("inf"))
    assert (ended, failure) == ([], "Bad file descriptor")


def test_spans_follow_each_other() -> None:
    ended = [float(second) for second in range(1, 101)]
    found = read_drives.spans(0.0, ended)
    assert found == [{"bytes": 64 * MIB, "seconds": 64.0}, {"bytes": 36 * MIB, "seconds": 36.0}]


def test_a_device_without_counters_has_moved_nothing() -> None:
    assert read_drives.traffic("0:0") == 0
