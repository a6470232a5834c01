"""scripts/test.py: what is told of a step that failed, and which steps go on at the same time."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kvstrata.lab.spec import PRESETS
from kvstrata.paths import PROJECT


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("kvstrata_test_script", PROJECT / "scripts" / "test.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look for the module that they are defined in.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_lines_that_name_a_failure_are_told_without_colours(script: ModuleType) -> None:
    lines = ["TASK [w]\n", "TASK [x]\n", "seen\n", "\x1b[31mfatal: [n1]: FAILED! =>\x1b[0m\n", "  msg: bad\n"]
    assert script.failures_of(lines) == ("TASK [x]", "fatal: [n1]: FAILED! =>", "  msg: bad")


def test_only_the_last_of_several_failures_is_told(script: ModuleType) -> None:
    lines = ["TASK [refuses]\n", "fatal: [n1]: as wanted\n", "ok\n", "FAILED tests/a.py\n", "FAILED tests/b.py\n"]
    assert script.failures_of(lines) == ("TASK [refuses]", "FAILED tests/a.py", "FAILED tests/b.py")


def test_what_failed_is_told_and_not_only_that_a_playbook_did(script: ModuleType) -> None:
    lines = ["TASK [x]\n", "  fatal: [n1]: FAILED! =>\n", "TASK [rescued]\n"]
    afterwords = [
        "ERROR    lab ➜ converge: Executed: Failed\n",
        "ERROR    Ansible return code was 2, command was: x\n",
        "ERROR    Molecule executed 1 scenario (1 failed)\n",
    ]
    assert script.failures_of([*lines, *afterwords])[:2] == ("TASK [x]", "  fatal: [n1]: FAILED! =>")
    assert script.failures_of(afterwords) == tuple(line.rstrip() for line in afterwords)


def test_without_such_lines_the_last_ones_are_told(script: ModuleType) -> None:
    assert script.failures_of([f"{number}\n" for number in range(50)])[-1] == "49"
    assert len(script.failures_of([f"{number}\n" for number in range(50)])) == script.FAILURES


@pytest.mark.parametrize("beside", [False, True])
def test_a_step_that_fails_says_why(script: ModuleType, beside: bool, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("bash", "-c", "echo one; echo 'ERROR: no such thing' >&2; exit 3")
    outcome = script.run(script.Step("group", "name", command), beside)
    assert not outcome.passed
    assert outcome.failures == ("ERROR: no such thing",)
    assert "one\n" in capsys.readouterr().out


def test_a_process_that_a_step_leaves_running_is_not_awaited(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = script.run(script.Step("group", "name", ("bash", "-c", "sleep 30 & echo $!")))
    os.kill(int(capsys.readouterr().out.split()[-1]), signal.SIGKILL)
    assert outcome.passed
    assert outcome.seconds < 10


@pytest.fixture
def seen(tmp_path: Path) -> Path:
    return tmp_path / "seen"


def says(script: ModuleType, name: str, when: str, seen: Path, meanwhile: str = "true") -> Any:
    """A step that writes down when it begins and ends, and in which lab."""
    line = f'echo "{name} $1 ${{{script.LAB_VARIABLE}:-}}" >>{seen}'
    command = f"say() {{ {line}; }}; say begins; {meanwhile}; say ends"
    return script.Step("group", name, ("bash", "-c", command), script.When(when))


def until(line: str, seen: Path) -> str:
    return f'until grep --quiet --line-regexp "{line}" {seen}; do sleep 0.02; done'


def test_a_scenario_goes_on_beside_the_row_and_two_after_it(script: ModuleType, seen: Path) -> None:
    one, two = script.LABS
    steps = [
        says(script, "row", "row", seen, until(f"a begins {one}", seen)),
        says(script, "alone", "alone", seen),
        # Ends when both others have begun: these were taken by the second lab, one after the other.
        says(script, "a", "beside", seen, until(f"c begins {two}", seen)),
        says(script, "b", "beside", seen),
        says(script, "c", "beside", seen),
        says(script, "before", "first", seen),
    ]
    outcomes = script.run_all(steps)
    assert [outcome.step.name for outcome in outcomes] == ["before", "row", "a", "b", "c", "alone"]
    assert all(outcome.passed for outcome in outcomes)
    lines = [line.strip() for line in seen.read_text().splitlines()]
    assert lines[:2] == ["before begins", "before ends"]
    assert lines[-2:] == ["alone begins", "alone ends"]
    assert lines.index("row ends") < lines.index(f"b begins {two}")
    in_second = [line for line in lines if line.endswith(two)]
    assert in_second == [f"{name} {what} {two}" for name in "bc" for what in ("begins", "ends")]


def test_every_scenario_runs_once_however_many_there_are(script: ModuleType, seen: Path) -> None:
    names = [f"s{number}" for number in range(12)]
    outcomes = script.run_all([says(script, name, "beside", seen) for name in names])
    assert [outcome.step.name for outcome in outcomes] == names
    assert sorted(line.split()[0] for line in seen.read_text().splitlines() if "begins" in line) == sorted(names)


def test_the_labs_of_scenarios_are_labs(script: ModuleType) -> None:
    assert {*script.LABS} == {*PRESETS} - {"lab"}
    config = (PROJECT / ".config/molecule/config.yml").read_text()
    assert f"/molecule/shared/labs/${{{script.LAB_VARIABLE}:-{script.LABS[0]}}}.yml" in config
