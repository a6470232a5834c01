"""Whether the machine was measured instead of the router."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstrata.bench.serving.processes import Child
from kvstrata.contract.waiting import Meter, Used

# They tell when they run, and spin until their input ends.
SPIN = """
import os, select, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
print("runs", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    for _ in range(10000):
        pass
"""


@pytest.fixture
def one_cpu() -> int:
    return min(os.sched_getaffinity(0))


@pytest.fixture
def spinning(one_cpu: int, tmp_path: Path) -> Iterator[Child]:
    """A program of ours that shares one CPU with another one."""
    script = SPIN.replace("while not select.select([sys.stdin], [], [], 0)[0]", "while True")
    child = Child("spin", [sys.executable, "-c", script, str(one_cpu)], os.environ, tmp_path / "log")
    other = subprocess.Popen([sys.executable, "-c", SPIN, str(one_cpu)], stdin=subprocess.PIPE)
    try:
        child.await_health(lambda: "runs" in (tmp_path / "log").read_text(), 60.0)
        yield child
    finally:
        other.kill()
        other.wait()
        child.end(0.0)


def test_two_programs_on_one_cpu_wait_for_each_other_and_that_is_seen(spinning: Child) -> None:
    meter = Meter([spinning])
    while (used := meter.used()).seconds < 2.0:
        os.sched_yield()
    assert used.cpu_s > 0.1
    # The kernel gives each about a half; less where others want the CPU as well.
    assert used.waited_s > 0.2


def test_waiting_is_told_against_the_time_that_answers_took() -> None:
    used = Used(cpu_s=1.0, waited_s=0.5, seconds=10.0)
    assert used.cores == pytest.approx(0.1)
    assert used.waiting(5.0) == pytest.approx(0.1)
    assert used.waiting(0.0) is None
