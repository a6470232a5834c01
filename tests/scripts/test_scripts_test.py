"""scripts/test.py: what is told of a step that failed."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from types import ModuleType

import pytest

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
