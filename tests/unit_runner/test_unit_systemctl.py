"""The words of systemctl that programs ask, for units under the runner."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from kvstrata.unit_runner import cli, files, systemctl
from kvstrata.unit_runner.state import State, Store
from kvstrata.verify.units import _PROPERTIES


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    units = tmp_path / "units"
    units.mkdir()
    (units / "a.service").write_text("[Service]\nUser=nobody\nExecStart=/bin/sleep 600\n")
    monkeypatch.setattr(files, "FOLDERS", (units,))
    monkeypatch.setattr(files.find, "__defaults__", ((units,),))
    monkeypatch.setenv(systemctl.STATE_VARIABLE, str(tmp_path / "state"))
    return Store(tmp_path / "state")


def test_what_the_verifier_asks_of_units_is_answered(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    store.write(State("a.service", "active", main_pid=7, restarts=2, since=1.7e9, invocation="ab" * 16))
    words = ["show", "--no-pager", f"--property={','.join(_PROPERTIES)}", "--", "a.service", "b.service"]
    assert systemctl.main(words) == 0
    one, other = (
        dict(line.partition("=")[::2] for line in block.splitlines()) for block in capsys.readouterr().out.split("\n\n")
    )
    assert one == {
        "Id": "a.service",
        "LoadState": "loaded",
        "ActiveState": "active",
        "SubState": "running",
        "UnitFileState": "disabled",
        "NRestarts": "2",
        "Result": "success",
        "InvocationID": "ab" * 16,
        "ActiveEnterTimestamp": "Tue 2023-11-14 22:13:20 UTC",
    }
    assert (other["LoadState"], other["ActiveState"], other["SubState"]) == ("not-found", "inactive", "dead")


def test_single_values(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    store.write(State("a.service", "active", main_pid=7, since=1.7e9))
    for words, said in (
        (["--property=MainPID"], "7"),
        (["--property=User"], "nobody"),
        (["--timestamp=unix", "--property=ExecMainStartTimestamp"], "@1700000000"),
        (["--property=ExecStart"], "{ path=/bin/sleep ; argv[]=/bin/sleep 600 ; }"),
    ):
        assert systemctl.main(["show", *words, "--value", "--", "a.service"]) == 0
        assert capsys.readouterr().out == f"{said}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["show", "--property=CPUUsageNSec", "a.service"], "property 'CPUUsageNSec'"),
        (["show", "a.service"], "property ''"),
        (["list-units"], "'list-units'"),
        (["show", "--all", "a.service"], "option '--all'"),
        ([], "no verb"),
        (["kill", "--signal=KILL", "a.service"], "is inactive"),
        (["cat", "none.service"], "no such unit"),
    ],
)
def test_what_is_not_known_is_an_error(
    store: Store, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert systemctl.main(words) == 1
    assert said in capsys.readouterr().err


def test_a_unit_is_started_killed_and_stopped(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert systemctl.main(["is-active", "--quiet", "a.service"]) == 3
    if os.getuid() != 0:
        pytest.skip("NOT CHECKED: only root can run a unit of another user")
    assert systemctl.main(["cat", "a.service"]) == 0
    assert "ExecStart=/bin/sleep 600" in capsys.readouterr().out
    # The supervisor is another process, and looks where systemd does.
    folder = ["--folder", str(files.FOLDERS[0])]
    assert cli.main(["start", "a.service", "--state", str(store.folder), *folder]) == 0
    assert systemctl.main(["is-active", "a.service"]) == 0
    pid = store.read("a.service").main_pid
    assert systemctl.main(["kill", "--signal=KILL", "--", "a.service"]) == 0
    end = time.monotonic() + 30
    while store.read("a.service").active == "active":
        assert time.monotonic() < end
        time.sleep(0.05)
    assert pid
    assert systemctl.main(["stop", "a.service"]) == 0
    assert systemctl.main(["is-active", "a.service"]) == 3
