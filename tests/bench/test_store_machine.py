from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from kvstrata.bench import host, procfs, rawdisk, runner
from kvstrata.bench.errors import BenchError
from kvstrata.bench.procfs import Disk, Usage
from kvstrata.bench.runner import Plan, seconds_each
from kvstrata.bench.sizes import GIB, MIB
from tests.bench.samples import SETUP

MOUNTS = """\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
25 24 0:23 / /run/mem rw,relatime - tmpfs tmpfs rw,size=24684084k
30 27 8:17 / /data/drive\\0401 rw shared:3 - xfs /dev/sdb1 rw
31 27 0:40 / /data/twice rw - tmpfs tmpfs rw
32 27 8:1 / /data/twice rw - ext4 /dev/sda1 rw
"""


@pytest.mark.parametrize(
    ("folder", "source", "in_memory"),
    [
        ("/", "/dev/vda", False),
        ("/data", "/dev/vda", False),
        ("/run/mem/x", "tmpfs", True),
        ("/run/memx", "/dev/vda", False),
        ("/data/drive 1/a", "/dev/sdb1", False),
        ("/data/twice", "/dev/sda1", False),
    ],
)
def test_a_folder_lies_on_the_last_of_the_longest_mounts(folder: str, source: str, in_memory: bool) -> None:
    mount = procfs.parse_mounts(MOUNTS, folder)
    assert (mount.source, mount.in_memory) == (source, in_memory)


DISKSTATS = """\
   7       0 loop0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
 254       0 vda 55124 11308 4467002 16171 10558 64361 5878896 15569 0 9520 32501 7036 40 459280 721 929 38
"""


def test_sectors_are_512_bytes() -> None:
    assert procfs.parse_diskstats(DISKSTATS, "254:0") == Disk(4467002 * 512, 5878896 * 512)


def test_a_device_without_counters_is_none_and_not_zero() -> None:
    assert procfs.parse_diskstats(DISKSTATS, "0:40") is None


def test_usage_is_of_the_process_and_its_name_may_hold_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "io").write_text("rchar: 9\nwchar: 9\nread_bytes: 4096\nwrite_bytes: 8192\n")
    (tmp_path / "7" / "stat").write_text(f"7 (a ) b) S 1 7 7 0 -1 4194560 1 0 0 0 {2 * ticks} {ticks} 0 0 20 0\n")
    monkeypatch.setattr(procfs, "PROC", tmp_path)
    assert procfs.process_usage(7) == Usage(4096, 8192, 3.0)


def test_usage_adds_and_subtracts() -> None:
    assert Usage(1, 2, 3.0) + Usage(10, 20, 30.0) - Usage(1, 1, 1.0) == Usage(10, 21, 32.0)


def test_dropped_files_are_fetched_from_the_drive_again(drive: Path) -> None:
    (drive / "sub").mkdir()
    path = drive / "sub" / "data"
    path.write_bytes(os.urandom(4 * MIB))
    assert procfs.drop_cache(drive) == 4 * MIB
    before = procfs.process_usage(os.getpid()).read_bytes
    path.read_bytes()
    assert procfs.process_usage(os.getpid()).read_bytes - before >= 4 * MIB


def in_memory(monkeypatch: pytest.MonkeyPatch, answer: bool = True) -> None:
    fstype = "tmpfs" if answer else "ext4"
    monkeypatch.setattr(procfs, "mount_of", lambda _: procfs.Mount("/m", fstype, "m", "0:1"))


def test_a_folder_in_memory_is_refused_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_memory(monkeypatch)
    with pytest.raises(BenchError, match=r"lies on tmpfs, in memory.*--allow-tmpfs"):
        host.check_folder(tmp_path, MIB, allow_memory=False)
    assert host.check_folder(tmp_path, MIB, allow_memory=True).in_memory


def test_a_folder_without_room_is_refused_with_both_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_memory(monkeypatch, answer=False)
    with pytest.raises(BenchError, match=r"GiB free; 5002\.0 GiB are needed for --bytes 1000 GiB"):
        host.check_folder(tmp_path, 1000 * GIB, allow_memory=False)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no such folder"):
        host.check_folder(tmp_path / "nowhere", MIB, allow_memory=False)


def test_no_default_folder_is_in_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KVSTRATA_CACHE", str(tmp_path))
    in_memory(monkeypatch)
    with pytest.raises(BenchError, match="name one on the drive with --dir"):
        host.default_folder()


def test_a_busy_machine_is_noted() -> None:
    quiet = {"load_before": 0.3, "cores": 2, "device_counters": True, "device": "/dev/vda"}
    assert host.warnings(quiet) == []
    (busy,) = host.warnings(quiet | {"load_before": 1.4})
    assert "THE MACHINE WAS BUSY: load 1.4 on 2 cores" in busy


def plan(**changes: object) -> Plan:
    made = Plan([SETUP], {}, Path("/"), False, MIB, seconds=8.0, minutes=19.0, wait_minutes=0.0, repeats=3, seed=1)
    return replace(made, **changes)  # type: ignore[arg-type]


def test_workloads_get_less_time_where_many_setups_share_the_minutes() -> None:
    assert seconds_each(plan(), 2) == 8.0
    assert 0.5 < seconds_each(plan(), 40) < 8.0


def test_a_study_that_cannot_fit_is_refused_with_what_it_needs() -> None:
    with pytest.raises(BenchError, match=r"30 setups, 3 times, do not fit into --minutes 2; at least 9 are needed"):
        seconds_each(plan(minutes=2.0), 30)


def fio(kind: str, size: int, runtime_ms: int, error: int = 0) -> str:
    job = {"error": error, kind: {"io_bytes": size, "runtime": runtime_ms}}
    return "fio: a note\n" + json.dumps({"fio version": "fio-3.33", "jobs": [job]})


def test_the_rate_of_fio_is_bytes_over_its_own_run_time() -> None:
    assert rawdisk.parse_fio(fio("read", 3_000_000_000, 1500), "read") == 2000.0


@pytest.mark.parametrize("answer", [fio("read", 0, 0), fio("read", 100, 1, error=28)])
def test_a_failed_fio_is_no_rate(answer: str) -> None:
    with pytest.raises(BenchError, match="fio read: error"):
        rawdisk.parse_fio(answer, "read")


def test_without_fio_own_threads_measure_the_drive(drive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    found = rawdisk.measure(drive, 32 * MIB, 5.0, repeat=2)
    assert (found.tool, found.repeat) == (rawdisk.OWN_TOOL, 2)
    assert found.write_mb_s > 0
    assert found.read_mb_s > 0
    assert list(drive.iterdir()) == []


def test_own_threads_write_and_read_the_whole_file(drive: Path) -> None:
    before = procfs.process_usage(os.getpid())
    rawdisk.own(drive / "raw", 64 * MIB, 10.0)
    used = procfs.process_usage(os.getpid()) - before
    assert (drive / "raw").stat().st_size == 64 * MIB
    assert used.write_bytes >= 64 * MIB
    assert used.read_bytes >= 64 * MIB


STAT = "cpu  400 100 200 9000 5000 10 20 70 50 5\ncpu0 1 1 1 1 1 1 1 1 1 1\n"


def test_the_machines_cpu_is_all_but_idle_and_waiting() -> None:
    assert procfs.parse_cpu(STAT) == 800 / os.sysconf("SC_CLK_TCK")


def test_a_child_of_ours_is_not_foreign() -> None:
    stat = Path("/proc/stat")
    busy, foreign = procfs.parse_cpu(stat.read_text()), procfs.foreign_cpu_s(Usage())
    burn = "import time\nwhile time.process_time() < 1.0: pass"
    subprocess.run([sys.executable, "-c", burn], check=True)
    foreign = procfs.foreign_cpu_s(Usage()) - foreign
    busy = procfs.parse_cpu(stat.read_text()) - busy
    assert busy - foreign >= 0.9


def test_others_are_noted_when_they_took_a_tenth_of_the_cpu() -> None:
    assert host.foreign_note([0.0, 0.2, 1.9], 2) is None
    note = host.foreign_note([0.0, 0.5, 1.9], 2)
    assert note == "THE MACHINE WAS SHARED: others used 0.5 of 2 cores in the median measurement, 1.9 in the worst"
    assert host.foreign_note([], 2) is None


def test_a_run_that_is_out_of_time_begins_no_setup_and_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_memory(monkeypatch, answer=False)
    now = 0.0

    def raw(folder: Path, size: int, seconds: float, repeat: int) -> rawdisk.RawSample:
        nonlocal now
        now += 20 * 60
        return rawdisk.RawSample(repeat, "fake", 1.0, 1.0)

    monkeypatch.setattr(rawdisk, "measure", raw)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    found = runner.run(plan(folder=tmp_path), lambda _: None)
    assert not found.complete
    assert "CUT SHORT after 19 minutes, before base, round 1: repeats are missing" in found.notes
    assert (len(found.raw), found.samples, found.failures) == (1, [], [])
    assert list(tmp_path.iterdir()) == []
