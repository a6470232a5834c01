"""What the command line of the lab makes of its options."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from kvstrata.lab import cli, lab
from kvstrata.lab.spec import LabSpec


@pytest.mark.parametrize(
    ("options", "suites"),
    [
        ([], ("bookworm",)),
        (["--suite", "trixie"], ("trixie",)),
        (["--suite", "bookworm", "--suite", "trixie"], ("bookworm", "trixie")),
    ],
)
def test_a_suite_for_each_node_is_handed_on(
    monkeypatch: pytest.MonkeyPatch, options: list[str], suites: tuple[str, ...]
) -> None:
    seen: list[LabSpec] = []
    monkeypatch.setattr(lab, "up", lambda spec, release: seen.append(spec))
    result = CliRunner().invoke(cli.app, ["up", "--nodes", "3", *options])
    assert result.exit_code == 0, result.output
    assert [spec.suites for spec in seen] == [suites]


def test_a_suite_that_there_is_not_is_an_error_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(cli.app, ["up", "--suite", "sid"])
    assert result.exit_code == 1
    assert "suite 'sid': allowed are bookworm, trixie" in result.output
