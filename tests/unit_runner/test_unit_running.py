"""Real processes under the runner, as the user who runs the tests: what needs root is in molecule/units."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kvstrata.paths import PROJECT
from kvstrata.unit_runner import process, restart, tree
from kvstrata.unit_runner.service import Service

PYTHON = sys.executable
TELL = """
import json, os, sys, resource, signal, time
folder = os.path.dirname(sys.argv[1])
file = sys.argv[1] + "." + str(len([name for name in os.listdir(folder) if name.startswith("told.")]))
seen = {"argv": sys.argv[2:], "env": dict(os.environ), "cwd": os.getcwd(), "pid": os.getpid(), "umask": os.umask(0)}
seen |= {"nofile": resource.getrlimit(resource.RLIMIT_NOFILE), "nice": os.nice(0)}
seen |= {"session": os.getsid(0) == os.getpid()}
with open(file + "~", "w") as stream:
    json.dump(seen, stream)
os.rename(file + "~", file)
exec(os.environ.get("THEN", "time.sleep(600)"))
"""


class Host:
    """A folder of units, and the runner for them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tell.py").write_text(TELL)
        self.units: set[str] = set()

    def unit(self, name: str, service: str = "", unit: str = "", arguments: str = "") -> None:
        start = f"ExecStart={PYTHON} {self.folder}/tell.py {self.folder}/told {arguments}\n"
        (self.folder / name).write_text(f"[Unit]\n{unit}\n[Service]\nType=exec\n{start}{service}\n")

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        folders = ["--state", str(self.folder / "state")]
        folders += ["--folder", str(self.folder)] if words[0] in ("start", "check") else []
        if words[0] == "start":
            self.units |= set(words[1:])
        return subprocess.run(
            [PYTHON, "-m", "kvstrata.unit_runner", *words, *folders],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "PYTHONPATH": str(PROJECT / "src"), "STRAY": "1"},
        )

    def told(self, number: int = 0) -> Any:
        file = self.folder / f"told.{number}"
        wait(file.exists)
        return json.loads(file.read_text())

    def status(self, unit: str) -> Any:
        return json.loads(self.run("status", unit, "--json").stdout)[0]


def wait(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    if made.units:
        made.run("stop", *made.units)


def test_a_process_sees_what_its_unit_says_and_nothing_of_the_runner(host: Host) -> None:
    (host.folder / "more.env").write_text("B=file\nC='of the file'\n")
    host.unit(
        "a@.service",
        f"WorkingDirectory={host.folder}\nUMask=0027\nLimitNOFILE=200:300\nNice=3\n"
        f'Environment="A=two words" B=unit\nEnvironmentFile={host.folder}/more.env\nEnvironmentFile=-/none',
        arguments='%i ${A} $A "quoted word" $$x --flag=%n',
    )
    assert host.run("start", "a@one.service").stdout == "a@one.service: active\n"
    seen = host.told()
    assert seen["argv"] == ["one", "two words", "two", "words", "quoted word", "$x", "--flag=a@one.service"]
    assert {name: seen["env"][name] for name in "ABC"} == {"A": "two words", "B": "file", "C": "of the file"}
    assert "STRAY" not in seen["env"]
    assert "PYTHONPATH" not in seen["env"]
    assert seen["env"]["SYSTEMD_EXEC_PID"] == str(seen["pid"])
    assert (seen["cwd"], seen["nofile"], seen["umask"], seen["nice"]) == (str(host.folder), [200, 300], 0o027, 3)
    assert seen["session"]
    status = host.status("a@one.service")
    assert (status["active"], status["main_pid"]) == ("active", seen["pid"])


def test_a_limit_that_the_host_does_not_allow_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    real = resource.setrlimit

    def refusing(number: int, wanted: tuple[int, int]) -> None:
        # As the kernel where the capability is missing: also root in a container has it not always.
        if number == resource.RLIMIT_NOFILE and wanted[1] > hard:
            raise PermissionError
        real(number, wanted)

    monkeypatch.setattr(resource, "setrlimit", refusing)
    service = Service("a.service", (), limits={"LimitNOFILE": (hard + 1, hard + 1), "LimitCORE": (0, 0)})
    assert process.out_of_reach(service) == (f"LimitNOFILE={hard + 1}, this host allows {hard}",)


def test_an_unknown_directive_stops_the_start_of_all(host: Host) -> None:
    host.unit("good.service")
    host.unit("bad.service", "MemoryMax=1G")
    done = host.run("start", "good.service", "bad.service")
    assert done.returncode == 2
    assert "MemoryMax=" in done.stderr
    assert host.status("good.service")["active"] == "inactive"


def test_a_service_that_ends_is_started_again_and_one_that_is_stopped_is_not(host: Host) -> None:
    host.unit("a.service", "Restart=always\nRestartSec=100ms", unit="StartLimitIntervalSec=0")
    host.run("start", "a.service")
    os.kill(host.told()["pid"], signal.SIGKILL)
    again = host.told(1)
    assert host.status("a.service")["restarts"] == 1
    assert host.run("stop", "a.service").stdout == "a.service: inactive\n"
    assert tree.start_time(again["pid"]) is None
    assert not (host.folder / "told.2").exists()


def test_too_many_starts_are_an_end(host: Host) -> None:
    host.unit(
        "a.service",
        "Restart=on-failure\nRestartSec=0\nEnvironment='THEN=sys.exit(3)'",
        unit="StartLimitIntervalSec=60\nStartLimitBurst=3",
    )
    host.run("start", "a.service")
    wait(lambda: host.status("a.service")["active"] == "failed" and not host.status("a.service")["supervisor"])
    assert "too often" in host.status("a.service")["result"]
    assert (host.folder / "told.2").exists()
    assert not (host.folder / "told.3").exists()


def test_a_stop_kills_what_does_not_hear_with_all_that_it_started(host: Host) -> None:
    deaf = "signal.signal(15, signal.SIG_IGN); p = os.fork(); p or os.setsid(); time.sleep(600)"
    host.unit("a.service", f"TimeoutStopSec=1\nEnvironment='THEN={deaf}'")
    host.run("start", "a.service")
    seen = host.told()
    wait(lambda: len(tree.descendants(host.status("a.service")["supervisor"])) == 2)
    both = tree.descendants(host.status("a.service")["supervisor"])
    assert seen["pid"] in both
    began = time.monotonic()
    host.run("stop", "a.service")
    assert time.monotonic() - began >= 1
    assert [pid for pid in both if tree.start_time(pid) is not None] == []


def test_a_program_that_is_not_there_is_told_with_its_line(host: Host) -> None:
    (host.folder / "a.service").write_text("[Service]\nType=exec\nExecStart=/no/such/program\n")
    done = host.run("start", "a.service")
    assert done.returncode == 1
    assert "a.service:3: ExecStart: /no/such/program: No such file" in done.stdout


def test_a_user_that_only_root_could_become_is_refused(host: Host) -> None:
    if os.getuid() == 0:
        pytest.skip("NOT CHECKED: this is root, who may become anybody")
    host.unit("a.service", "User=root")
    assert "User=root" in host.run("start", "a.service").stdout


def test_a_supervisor_that_was_killed_is_told(host: Host) -> None:
    host.unit("a.service", "Environment='THEN=time.sleep(600)'")
    host.run("start", "a.service")
    seen = host.told()
    os.kill(host.status("a.service")["supervisor"], signal.SIGKILL)
    wait(lambda: host.status("a.service")["active"] == "failed")
    assert "supervisor is gone" in host.status("a.service")["result"]
    os.kill(seen["pid"], signal.SIGKILL)


# --- when it starts again: the tables of systemd.service(5) ---


@pytest.mark.parametrize(
    ("policy", "yes"),
    [
        ("no", []),
        ("always", ["success", "exit-code", "signal", "timeout"]),
        ("on-success", ["success"]),
        ("on-failure", ["exit-code", "signal", "timeout"]),
        ("on-abnormal", ["signal", "timeout"]),
        ("on-abort", ["signal"]),
    ],
)
def test_restart_policies(policy: str, yes: list[restart.Ending]) -> None:
    service = Service("a.service", (), restart=policy)
    endings: list[restart.Ending] = ["success", "exit-code", "signal", "timeout"]
    assert [each for each in endings if restart.again(service, restart.Ended(each, ""))] == yes


def test_delays_grow_from_the_first_to_the_most_in_so_many_steps() -> None:
    service = Service("a.service", (), restart_s=2, restart_steps=6, restart_most_s=60)
    delays = [restart.delay_s(service, number) for number in range(1, 9)]
    assert delays == pytest.approx([2, 3.53, 6.21, 10.95, 19.31, 34.04, 60, 60], abs=0.01)
    assert restart.delay_s(Service("a.service", (), restart_s=2), 9) == 2


def test_a_signal_that_asks_to_end_is_a_clean_end_but_for_a_oneshot() -> None:
    assert restart.of_status(signal.SIGTERM).ending == "success"
    assert restart.of_status(signal.SIGTERM, oneshot=True).ending == "signal"
    assert restart.of_status(signal.SIGKILL).ending == "signal"
    assert restart.of_status(3 << 8).ending == "exit-code"
