"""Real servers: a whole quick study, and what is left when one fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from kvstrata.bench.errors import BenchError
from kvstrata.bench.fleet import Fleet
from kvstrata.bench.results import Sample
from kvstrata.bench.server import Server, free_port
from kvstrata.bench.study import dram_baseline
from kvstrata.cli import app
from tests.bench.samples import SETUP


def bench(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["bench", "store", *map(str, words)])


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_quick_run_on_redis_measures_and_leaves_nothing_behind(redis: Path, drive: Path, tmp_path: Path) -> None:
    place = drive / "place"
    place.mkdir()
    result = bench("--quick", "--server", "redis", "--dir", place, "--output", tmp_path / "v1.0")
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.glob("v1*")} == {"v1.0.json", "v1.0.html", "v1.0.md"}
    data = read(tmp_path / "v1.0.json")
    assert data["complete"]
    assert data["duration_s"] < 60
    assert {(s["setup"], s["workload"]) for s in data["samples"]} == {
        (setup, workload) for setup in ("base", "layout: string") for workload in ("set", "get_warm", "mixed")
    }
    assert len(data["raw"]) == 3
    assert all(row["repeats"] == 3 and row["mb_s"] > 0 for row in data["summary"])
    assert any("NO KVROCKS in this run" in note for note in data["notes"])
    assert list(place.iterdir()) == []


def test_a_quick_run_on_kvrocks_is_cold_where_it_says_so(
    kvrocks: Path, redis: Path, drive: Path, tmp_path: Path
) -> None:
    # That a run repeats is seen on Redis; here each of many setups starts a server of its own.
    result = bench("--quick", "--repeats", "1", "--binary", kvrocks, "--dir", drive, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    data = read(tmp_path / "out.json")
    cold = [sample for sample in data["samples"] if sample["workload"] == "get_cold"]
    assert cold
    assert all(Sample(**sample).as_named for sample in data["samples"])
    base = next(row for row in data["summary"] if (row["setup"], row["workload"]) == ("base", "set"))
    with_wal = next(row for row in data["summary"] if (row["setup"], row["workload"]) == ("wal: on", "set"))
    # 16 MiB are flushed once and never compacted: once through the WAL, where there is one, and once as blobs.
    assert base["write_amp_server"] == pytest.approx(1.0, abs=0.1)
    assert base["write_amp_process"] == pytest.approx(1.0, abs=0.1)
    assert with_wal["write_amp_server"] == pytest.approx(2.0, abs=0.1)
    assert with_wal["write_amp_process"] == pytest.approx(2.0, abs=0.1)
    assert base["to_raw"] > 0
    assert base["to_dram"] > 0


def test_a_directive_that_kvrocks_does_not_know_fails_its_setup(kvrocks: Path, tmp_path: Path) -> None:
    setup = replace(SETUP, directives={"workers": "8", "rocksdb.no_such_thing": "1"})
    fleet = Fleet(setup, kvrocks, tmp_path, "0:0")
    try:
        with pytest.raises(BenchError, match=r"rocksdb\.no_such_thing is unknown to this server, not 1"):
            fleet.start()
    finally:
        fleet.kill()


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A server that says its version and then always fails."""
    path = tmp_path / "kvrocks"
    path.write_text('#!/bin/sh\n[ "$1" = --version ] && echo broken 1.0 && exit 0\necho "no such luck"\nexit 3\n')
    path.chmod(0o755)
    return path


def test_a_server_that_does_not_start_is_told_and_the_others_are_measured(
    redis: Path, broken: Path, drive: Path, tmp_path: Path
) -> None:
    place = drive / "place"
    place.mkdir()
    result = bench("--quick", "--repeats", "1", "--binary", broken, "--dir", place, "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert "no such luck" in result.output
    data = read(tmp_path / "out.json")
    assert {failure["setup"] for failure in data["failures"]} >= {"base", "layout: string"}
    assert {sample["setup"] for sample in data["samples"]} == {"redis-server (DRAM)"}
    assert not data["complete"]
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--binary", "/nowhere/kvrocks"], "no Kvrocks at /nowhere/kvrocks; name one with --binary"),
        (["--server", "redis", "--axes", "moon"], "unknown axis moon; allowed: value"),
        (["--server", "redis", "--bytes", "1GB"], "--bytes: '1GB' is no size"),
        (["--server", "redis", "--dir", "/nowhere"], "--dir /nowhere: no such folder"),
        (["--server", "redis", "--minutes", "0.5"], "do not fit into --minutes 0.5"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_starts(
    redis: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    result = bench(*words, "--output", tmp_path / "out")
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert list(tmp_path.iterdir()) == []


def test_without_redis_the_missing_baseline_is_loud(
    kvrocks: Path, drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    words = ("--axes", "layout", "--bytes", "4MiB", "--repeats", "1", "--dir", drive, "--output", tmp_path / "out")
    result = bench("--binary", kvrocks, *words)
    assert result.exit_code == 0, result.output
    assert "NO REDIS-SERVER on this machine: the DRAM baseline is MISSING" in result.output
    assert read(tmp_path / "out.json")["raw"][0]["tool"] == "kvstrata's own O_DIRECT threads"


def test_a_signal_ends_the_run_with_a_report_of_what_was_measured(redis: Path, drive: Path, tmp_path: Path) -> None:
    place = drive / "place"
    place.mkdir()
    # Far more rounds than there will be time for: the signal must not come to a run that is over.
    words = ["bench", "store", "--repeats", "100", "--minutes", "1000", "--bytes", "16MiB", "--server", "redis"]
    script = "from kvstrata.cli import main; main()"
    command = [sys.executable, "-c", script, *words, "--dir", str(place), "--output", str(tmp_path / "out")]
    running_bench = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert running_bench.stderr is not None
    while "base" not in running_bench.stderr.readline():
        assert running_bench.poll() is None
    running_bench.send_signal(signal.SIGTERM)
    running_bench.communicate(timeout=60)
    assert running_bench.returncode == 1
    data = read(tmp_path / "out.json")
    assert not data["complete"]
    assert "CUT SHORT by a signal: repeats are missing" in data["notes"]
    assert {sample["setup"] for sample in data["samples"]} >= {"base"}
    assert list(place.iterdir()) == []


def start_redis(redis: Path, folder: Path) -> Server:
    port = free_port()
    command = [str(redis), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    server = Server(command, port, os.environ, folder / "log")
    server.ready()
    return server


def test_a_stopped_server_reports_all_it_used_and_is_gone(redis: Path, tmp_path: Path) -> None:
    server = start_redis(redis, tmp_path)
    pid = int(
        next(line for line in str(server.ask("INFO")).splitlines() if line.startswith("process_id")).split(":")[1]
    )
    before = server.usage()
    used = server.stop()
    assert used.cpu_s >= before.cpu_s - 0.02
    assert not running(pid)


def test_a_server_that_ignores_sigterm_is_killed_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvstrata.bench.server.STOP_S", 0.3)
    log = tmp_path / "log"
    # The shell ignores it before it says so, and its log is how the test knows.
    server = Server(["/bin/sh", "-c", "trap '' TERM; echo deaf; while :; do read _ < /dev/zero; done"], 1, {}, log)
    over = time.monotonic() + 10
    while "deaf" not in log.read_text():
        assert time.monotonic() < over
    with pytest.raises(BenchError, match=r"did not end within 0 s after SIGTERM:\ndeaf"):
        server.stop()
    server.kill()


def test_a_server_that_ended_by_itself_is_told(tmp_path: Path) -> None:
    log = tmp_path / "log"
    server = Server(["/bin/sh", "-c", "echo gone; exit 3"], 1, {}, log)
    # Ended, and not yet awaited by anybody.
    os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(BenchError, match=r"ended by itself, with 3:\ngone"):
        server.stop()


def test_a_server_that_ended_by_itself_can_be_killed(tmp_path: Path) -> None:
    server = Server(["/bin/sh", "-c", "exit 3"], 1, {}, tmp_path / "log")
    os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
    server.kill()
    assert not running(server.pid)


def test_a_killed_benchmark_leaves_no_server(redis: Path, tmp_path: Path) -> None:
    script = f"""
import os, pathlib, sys
from kvstrata.bench.server import Server, free_port
port = free_port()
server = Server([{str(redis)!r}, "--port", str(port), "--save", "", "--dir", {str(tmp_path)!r}], port, os.environ,
                pathlib.Path({str(tmp_path / "log")!r}))
server.ready()
print(next(line for line in server.ask("INFO").splitlines() if line.startswith("process_id")).split(":")[1], flush=True)
sys.stdin.read()
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert running(pid)
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    over = time.monotonic() + 10
    while running(pid):
        assert time.monotonic() < over, "the server outlived the benchmark"


def test_an_unlimited_baseline_has_no_directives_to_check(redis: Path, tmp_path: Path) -> None:
    fleet = Fleet(replace(dram_baseline(SETUP), instances=2), redis, tmp_path, "0:0")
    try:
        fleet.start()
        assert len(set(fleet.ports)) == 2
        reading = fleet.reading()
        assert (reading.counters, reading.disk) == (None, None)
    finally:
        fleet.kill()
