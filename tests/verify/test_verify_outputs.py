"""What the command writes besides its report: files, kept runs, and what changed since an earlier one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from kvstrata.cli import app
from kvstrata.verify import cli, keep
from kvstrata.verify.document import Document
from kvstrata.verify.result import could_not_check
from tests.verify.fakes.junit_schema import problems
from tests.verify.fakes.site import Code, Site

APP = typer.Typer()
APP.command()(cli.verify)


@pytest.fixture
def described(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(cli, "describe", lambda inventory: site.cluster)
    monkeypatch.setattr(cli, "_shell", lambda node: site.shells[node.name])
    return site


def kept(site: Site) -> list[Path]:
    return keep.runs(site.cluster.verify.state_dir)


def verify(*arguments: str) -> tuple[int, str, str]:
    # Wide lines, as rich would fold them.
    done = CliRunner(env={"COLUMNS": "300"}).invoke(APP, ["-i", "inventories/x", *arguments])
    return done.exit_code, done.stdout, done.stderr


# -- files -----------------------------------------------------------------------------------------


def test_all_three_files_are_written_of_one_run(described: Site, tmp_path: Path) -> None:
    described.engine["node1"].routes["/health"] = lambda body: Code(503)
    paths = {form: tmp_path / f"out.{form}" for form in ("json", "xml", "html")}
    code, _, _ = verify(
        "--output", str(paths["json"]), "--junit", str(paths["xml"]), "--html", str(paths["html"]), "--seed", "abc"
    )
    assert code == 1
    document = json.loads(paths["json"].read_text())
    assert document["verdict"] == "failed"
    assert problems(paths["xml"].read_text()) == []
    assert 'failures="1"' in paths["xml"].read_text()
    assert "FAILED, exit status 1" in paths["html"].read_text()


@pytest.mark.parametrize("option", ["--output", "--junit", "--html"])
def test_a_file_that_cannot_be_written_is_exit_status_2_and_keeps_no_other_away(
    described: Site, tmp_path: Path, option: str
) -> None:
    others = {"--output", "--junit", "--html"} - {option}
    asked = [part for other in sorted(others) for part in (other, str(tmp_path / other))]
    code, _, err = verify(option, str(tmp_path / "no" / "file"), *asked)
    assert code == 2
    assert option in err
    assert all((tmp_path / other).exists() for other in others)


def test_an_inventory_that_cannot_be_described_is_in_every_file(described: Site, tmp_path: Path) -> None:
    code, _, _ = verify("--limit", "node9", "--junit", str(tmp_path / "a.xml"), "--html", str(tmp_path / "a.html"))
    assert code == 2
    assert problems((tmp_path / "a.xml").read_text()) == []
    assert 'errors="1"' in (tmp_path / "a.xml").read_text()
    assert "the inventory has node1, node2" in (tmp_path / "a.html").read_text()
    assert kept(described) == []


# -- kept runs -------------------------------------------------------------------------------------


def test_every_run_is_kept_whatever_its_verdict(described: Site) -> None:
    verify()
    described.engine["node1"].routes["/health"] = lambda body: Code(503)
    code, out, err = verify("--json")
    assert code == 1
    good, bad = (keep.load(path) for path in kept(described))
    assert (good["verdict"], bad["verdict"]) == ("ok", "failed")
    assert json.loads(out) == bad
    assert f"kept as {kept(described)[1]}" in err


def test_the_newest_runs_are_kept_and_none_on_demand(described: Site) -> None:
    for _ in range(3):
        verify("--keep", "2", "--only", "router")
    assert len(kept(described)) == 2
    before = kept(described)
    verify("--keep", "0", "--only", "router")
    assert kept(described) == before


def test_a_run_that_cannot_be_kept_says_so_and_keeps_its_exit_status(described: Site) -> None:
    folder = described.cluster.verify.state_dir
    folder.mkdir(parents=True)
    (folder / "verify").write_text("in the way")
    code, _, err = verify("--only", "router")
    assert code == 0
    assert "not kept: " in err


# -- what changed ----------------------------------------------------------------------------------


def test_what_changed_since_the_last_kept_run_follows_the_report(described: Site) -> None:
    code, out, _ = verify("--compare")
    assert code == 0
    assert out.splitlines()[-1] == "nothing to compare with: no earlier run of this site is kept"
    described.engine["node1"].routes["/health"] = lambda body: Code(503)
    code, out, _ = verify("--compare")
    assert code == 1
    report, _, changes = out.partition("changed since ")
    assert "FAILED: 1 of" in report
    assert "newly fails: node1: vllm@0.service" in changes
    code, out, _ = verify("--compare")
    assert code == 1
    assert "nothing (times to first token may differ by 25%)" in out


def test_a_baseline_is_compared_with_instead(described: Site, tmp_path: Path) -> None:
    verify("--output", str(tmp_path / "good.json"))
    described.engine["node1"].routes["/health"] = lambda body: Code(503)
    verify()
    code, out, _ = verify("--baseline", str(tmp_path / "good.json"))
    assert code == 1
    assert f"compared with {tmp_path / 'good.json'}" in out
    assert "newly fails: node1" in out


def test_differences_do_not_change_the_exit_status(described: Site, tmp_path: Path) -> None:
    described.engine["node1"].routes["/health"] = lambda body: Code(503)
    verify("--output", str(tmp_path / "bad.json"))
    described.engine["node1"].routes["/health"] = lambda body: ""
    code, out, _ = verify("--baseline", str(tmp_path / "bad.json"))
    assert code == 0
    assert "newly passes: node1" in out


def test_under_json_the_differences_go_to_the_other_stream(described: Site) -> None:
    verify()
    _, out, err = verify("--json", "--compare")
    assert json.loads(out)["ok"] is True
    assert "changed since " in err


def test_a_baseline_that_cannot_be_read_is_exit_status_2_before_anything_is_asked(
    described: Site, tmp_path: Path
) -> None:
    (tmp_path / "a.json").write_text("{}")
    code, _, err = verify("--baseline", str(tmp_path / "a.json"))
    assert code == 2
    assert "--baseline: " in err
    assert "no document of kvstrata verify" in err
    assert described.nodes["node1"].shell.ran == []


# -- verify-diff -----------------------------------------------------------------------------------


def written(tmp_path: Path, name: str, document: Document) -> str:
    path = tmp_path / name
    path.write_text(json.dumps(document))
    return str(path)


def test_two_files_are_compared_without_verifying(tmp_path: Path) -> None:
    bad = could_not_check("x", "why")
    good = could_not_check("x", "why")
    good["checks"], good["failures"] = [{**bad["checks"][0], "status": "pass"}], []
    before, after = written(tmp_path, "good.json", good), written(tmp_path, "bad.json", bad)
    done = CliRunner().invoke(app, ["verify-diff", before, after])
    assert done.exit_code == 1
    assert "newly fails: controller: x (inventory), pass -> error: why" in done.stdout
    done = CliRunner().invoke(app, ["verify-diff", after, before, "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["checks"][0]["kind"] == "newly passes"
    assert CliRunner().invoke(app, ["verify-diff", before, before]).exit_code == 0


def test_a_file_that_is_no_document_is_exit_status_2(tmp_path: Path) -> None:
    good = written(tmp_path, "good.json", could_not_check("x", "why"))
    done = CliRunner().invoke(app, ["verify-diff", good, str(tmp_path / "none.json")])
    assert done.exit_code == 2
    assert "COULD NOT COMPARE" in done.stderr
