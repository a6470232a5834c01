"""Programs of a stack: awaited, counted, and ended with all that they started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving import guard
from kvstrata.bench.serving.processes import Processes
from kvstrata.paths import PROJECT

# A program that ignores SIGTERM, with a child that does too; "ready" when both are there.
STUBBORN = "trap '' TERM; sh -c \"trap '' TERM; echo ready; sleep 60\" & wait; sleep 60"


def until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    over = time.monotonic() + seconds
    while time.monotonic() < over:
        if condition():
            return True
        time.sleep(0.01)
    return condition()


def alive(session: int) -> bool:
    return any(not guard._is_zombie(pid) for pid in guard.members(session))


def test_a_program_that_ends_at_its_start_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        child = processes.start("vllm@0", ["sh", "-c", "echo no such model; exit 3"], os.environ, "vllm.log")
        with pytest.raises(BenchError, match=r"(?s)vllm@0 ended with 3 at its start.*no such model"):
            child.await_health(lambda: False, 20)


def test_a_program_that_is_never_healthy_is_told_after_the_deadline(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        child = processes.start("lmcache", ["sh", "-c", "echo waiting; sleep 60"], os.environ, "x.log")
        assert until(lambda: "waiting" in child.tail())
        with pytest.raises(BenchError, match=r"(?s)lmcache was not healthy within 0.1 s.*waiting"):
            child.await_health(lambda: False, 0.1)


def test_a_log_of_an_earlier_start_is_kept_and_not_told_again(tmp_path: Path) -> None:
    (tmp_path / "x.log").write_text("an earlier error\n")
    with Processes(tmp_path) as processes:
        child = processes.start("x", ["sh", "-c", "echo now; exit 1"], os.environ, "x.log")
        assert until(lambda: child.ended() is not None)
        assert "now" in child.tail()
        assert "an earlier error" not in child.tail()
    assert (tmp_path / "x.log").read_text() == "an earlier error\nnow\n"


def test_children_are_ended_too_when_a_program_does_not_heed_sigterm(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        child = processes.start("stubborn", ["sh", "-c", STUBBORN], os.environ, "x.log")
        assert until(lambda: "ready" in child.tail())
        assert len(guard.members(child.pid)) >= 3
        child.end(grace_s=0.1)
        assert not alive(child.pid)


def test_what_died_by_itself_is_named(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        processes.start("good", ["sleep", "60"], os.environ, "good.log")
        processes.start("bad", ["sh", "-c", "exit 7"], os.environ, "bad.log")
        assert until(lambda: processes.dead() is not None)
        assert "bad ended with 7" in (processes.dead() or "")


def test_the_guard_ends_what_a_killed_benchmark_leaves(tmp_path: Path) -> None:
    script = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from kvstrata.bench.serving.processes import Processes\n"
        f"with Processes(Path({str(tmp_path)!r})) as p:\n"
        f"    child = p.start('x', ['sh', '-c', {STUBBORN!r}], os.environ, 'x.log')\n"
        "    print(child.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(PROJECT / "src")}
    bench = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=env, text=True)
    assert bench.stdout is not None
    session = int(bench.stdout.readline())
    try:
        assert until(lambda: "ready" in (tmp_path / "x.log").read_text())
        bench.kill()
        bench.wait()
        assert until(lambda: not alive(session))
    finally:
        guard.kill(session)
        bench.stdout.close()


def test_processor_time_of_a_child_counts_as_its_programs(tmp_path: Path) -> None:
    burn = "sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done'; echo done; sleep 60"
    with Processes(tmp_path) as processes:
        child = processes.start("x", ["sh", "-c", burn], os.environ, "x.log")
        assert until(lambda: "done" in child.tail())
        assert child.cpu_s() > 0.05


def test_bytes_written_are_counted(tmp_path: Path) -> None:
    write = f"head -c 1000000 /dev/zero > {tmp_path}/file; echo done; exec sleep 60"
    with Processes(tmp_path) as processes:
        child = processes.start("x", ["sh", "-c", f"echo {'x' * 100}; {write}"], os.environ, "x.log")
        assert until(lambda: "done" in child.tail())
        assert child.io_bytes()["wchar"] >= 100


def test_ending_twice_is_harmless(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        child = processes.start("x", ["sleep", "60"], os.environ, "x.log")
        child.end()
        child.end()
        assert child.ended() is not None
        assert "-15" in str(child.ended()) or str(signal.SIGTERM.value) in str(child.ended())
