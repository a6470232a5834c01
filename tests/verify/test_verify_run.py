"""A whole verification: parallel nodes, verdicts, the report and the document."""

from __future__ import annotations

import io
import json
import re
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from kvstrata.cluster import Cluster, DescribeError, TiersPolicy
from kvstrata.verify import board, cli, phases, prometheus, report, runner, wait
from kvstrata.verify.check import Check, Group, Layer, Status
from kvstrata.verify.layers import NODE_LAYERS
from kvstrata.verify.result import Result, Verdict
from kvstrata.verify.runner import Selection
from kvstrata.verify.tiers.layer import TiersOptions
from tests.verify.fakes.site import Code, Site


class Listener:
    def __init__(self) -> None:
        self.groups: list[Group] = []
        self.steps: list[str] = []

    def group(self, group: Group) -> None:
        self.groups.append(group)

    def begin(self, nodes: Sequence[str], layers: Sequence[Layer]) -> None:
        self.steps.append(f"{len(nodes)} nodes, {len(layers)} layers")

    def step(self, text: str) -> None:
        self.steps.append(text)


def run(
    site: Site,
    only: Layer | None = None,
    limit: tuple[str, ...] | None = None,
    timeout_s: float = 20,
    listener: Listener | None = None,
    policy: TiersPolicy = TiersPolicy.NEVER,
) -> Result:
    selection = Selection(TiersOptions(policy, "seed-1"), None if only is None else frozenset({only}), limit)
    return runner.verify(site.cluster, site.shells, selection, timeout_s, listener or Listener())


def find(result: Result, check_id: str, host: str) -> Check:
    return next(check for check in result.checks if (check.id, check.host) == (check_id, host))


def printed(result: Result, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    report.show(result, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_good_site_is_ok_and_exit_status_is_0(site: Site) -> None:
    result = run(site)
    assert result.verdict is Verdict.OK
    assert [check for check in result.checks if check.bad] == []
    assert {check.host for check in result.checks} == {"node1", "node2", "test"}


def test_a_failed_check_is_exit_status_1_even_beside_a_node_that_is_not_reached(site: Site) -> None:
    site.engine["node1"].routes["/health"] = lambda body: Code(503)
    site.nodes["node2"].shell.unreachable = "SSH to node2: no answer in time"
    result = run(site)
    assert result.verdict is Verdict.FAILED
    assert {check.id for check in result.checks if check.bad} == {"engine.health", "host.ssh"}


def test_a_node_that_is_not_reached_is_exit_status_2_and_its_layers_are_loud_skips(site: Site) -> None:
    site.nodes["node2"].shell.unreachable = "SSH to node2: no answer in time"
    result = run(site)
    assert result.verdict is Verdict.COULD_NOT_CHECK
    ssh = find(result, "host.ssh", "node2")
    assert (ssh.status, ssh.seen) == (Status.ERROR, "could not check: SSH to node2: no answer in time")
    for layer in ("store", "cache", "engine", "router"):
        assert find(result, f"{layer}.all", "node2").seen == "NOT CHECKED: node2 was not reached"
    # What the neighbour would have looked at is not held against the node that answers.
    assert not [check for check in result.checks if check.host == "node1" and check.bad]


def test_a_node_that_hangs_delays_no_other_and_is_an_error_at_the_deadline(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    real = NODE_LAYERS[Layer.STORE]

    def hangs(ctx: Any) -> Iterator[Check]:
        if ctx.node.name == "node2":
            release.wait(30)
        return real(ctx)

    monkeypatch.setattr(runner, "NODE_LAYERS", {**NODE_LAYERS, Layer.STORE: hangs})
    listener, started = Listener(), time.monotonic()
    result = run(site, timeout_s=3, listener=listener)
    took = time.monotonic() - started
    release.set()
    assert took < 10
    assert find(result, "engine.health", "node1").status is Status.PASS
    assert find(result, "host.unit", "node2").status is Status.PASS
    assert find(result, "store.deadline", "node2").seen == "could not check: not done within 3 s"
    assert result.verdict is Verdict.COULD_NOT_CHECK


def test_a_check_that_breaks_costs_only_itself(site: Site) -> None:
    site.engine["node1"].routes["/v1/models"] = lambda body: ["not", "an", "object"]
    result = run(site)
    model = find(result, "engine.model", "node1")
    assert model.status is Status.ERROR
    assert "unexpected AttributeError" in model.seen
    assert find(result, "engine.health", "node1").status is Status.PASS


def test_a_unit_that_restarts_meanwhile_fails(site: Site) -> None:
    node = site.nodes["node1"]

    def restarts(body: dict[str, Any]) -> str:
        node.invocation += 1
        return ""

    site.engine["node1"].routes["/health"] = restarts
    check = find(run(site), "host.steady", "node1")
    assert check.status is Status.FAIL
    assert "vllm@0.service (0 -> 0 restarts)" in check.seen


def test_only_one_layer_runs_and_the_others_are_told_as_not_checked(site: Site) -> None:
    result = run(site, only=Layer.ENGINE)
    asked = {check.layer for check in result.checks if check.status is Status.PASS}
    assert asked == {Layer.ENGINE, Layer.HOST}
    assert [check.id for check in result.checks if check.layer is Layer.HOST and check.host == "node1"] == ["host.ssh"]
    assert find(result, "store.all", "test").seen == "NOT CHECKED: --only engine"


def test_a_limit_checks_those_nodes_and_tells_what_it_leaves_out(site: Site) -> None:
    result = run(site, limit=("node2",))
    assert result.nodes == ("node2",)
    assert find(result, "host.all", "test").seen == "NOT CHECKED: --limit leaves out node1"
    assert find(result, "router.all", "test").status is Status.SKIP


def test_every_finished_group_is_told_as_it_ends(site: Site) -> None:
    listener = Listener()
    run(site, listener=listener)
    told = [(group.host, group.layer) for group in listener.groups]
    whole = [phase.layer for phase in (*phases.BEFORE_TIERS, *phases.AFTER_TIERS) if phase.layer is not Layer.FAULTS]
    assert sorted(told) == sorted(
        [(node, layer) for node in ("node1", "node2") for layer in NODE_LAYERS]
        + [("test", layer) for layer in (*whole, Layer.TIERS)]
    )


# -- the report ------------------------------------------------------------------------------------


def test_the_report_ends_in_the_verdict(site: Site) -> None:
    text = printed(run(site))
    assert text.strip().splitlines()[-1].startswith("OK: ")
    assert "passed on 2 nodes in" in text
    assert re.search(r", \d+ NOT checked$", text.strip())


def test_a_failure_is_expanded_with_expected_seen_and_hint(site: Site) -> None:
    site.resp["node1"].engine = "redis"
    text = printed(run(site))
    assert "FAIL node1: d0 10.9.0.11:6666 server (store.engine)" in text
    assert "expected  kvrocks" in text
    assert "seen      redis 7.0.15" in text
    assert "hint      ssh root@10.9.0.11 journalctl -u kvrocks@d0.service -n 50 --no-pager" in text
    assert text.strip().splitlines()[-1].startswith("FAILED: 1 of ")


def test_the_three_times_to_first_token_are_printed_with_their_ratio(site: Site) -> None:
    text = printed(run(site, policy=TiersPolicy.ALWAYS))
    for name in ("cold", "after restart", "other node"):
        assert name in text
    assert text.count("x faster") == 2
    assert "seed seed-1" in text


def test_what_a_node_says_is_never_taken_for_markup(site: Site) -> None:
    site.engine["node1"].routes["/v1/models"] = lambda body: {"data": [{"id": "[/bold]", "max_model_len": 1}]}
    assert "[/bold] with 1 tokens" in printed(run(site))


def test_progress_is_a_line_for_each_group_where_there_is_no_terminal(site: Site) -> None:
    console = Console(file=io.StringIO(), width=200)
    progress = board.ConsoleProgress(console)
    for node in site.cluster.nodes[:1]:
        checks = tuple(NODE_LAYERS[Layer.STORE](site.context(node.name)))
        progress.group(Group(Layer.STORE, node.name, checks, 1.0))
    progress.step("something long")
    progress.close()
    assert isinstance(console.file, io.StringIO)
    assert re.fullmatch(r"ok store node1: (\d+) of \1 passed in 1\.0 s\n\.\. something long\n", console.file.getvalue())


# -- the document ----------------------------------------------------------------------------------


def test_the_document_is_flat_versioned_and_without_secrets(site: Site) -> None:
    site.resp["node1"].password = "another"
    document = run(site).as_json()
    text = json.dumps(document)
    assert "secret-pw" not in text
    assert (document["schema"], document["ok"], document["verdict"], document["exit_code"]) == (
        2,
        False,
        "failed",
        1,
    )
    keys = {"id", "layer", "host", "what", "expected", "seen", "status", "hint", "duration_s", "data"}
    assert document["failures"]
    for check in document["checks"] + document["failures"]:
        assert check.keys() == keys
    assert ("store", "node1") in [(timing["layer"], timing["host"]) for timing in document["timings"]]
    assert "0.31.0" in json.dumps(document["versions"])


# -- the command -----------------------------------------------------------------------------------

APP = typer.Typer()
APP.command()(cli.verify)


@pytest.fixture
def described(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(cli, "describe", lambda inventory: site.cluster)
    monkeypatch.setattr(cli, "_shell", lambda node: site.shells[node.name])
    return site


def test_the_command_prints_the_report_and_closes_its_connections(described: Site) -> None:
    done = CliRunner().invoke(APP, ["-i", "inventories/x"])
    assert done.exit_code == 0
    assert "OK: " in done.stdout
    assert "ok store node1" in done.stderr
    assert all(shell.closed for shell in described.shells.values())


def test_json_is_all_that_json_prints(described: Site, tmp_path: Path) -> None:
    described.engine["node1"].routes["/health"] = lambda body: Code(503)
    done = CliRunner().invoke(APP, ["-i", "x", "--json", "--output", str(tmp_path / "out.json")])
    assert done.exit_code == 1
    document = json.loads(done.stdout)
    assert [failure["id"] for failure in document["failures"]] == ["engine.health"]
    assert json.loads((tmp_path / "out.json").read_text()) == document


def test_an_output_that_cannot_be_written_is_exit_status_2(described: Site, tmp_path: Path) -> None:
    done = CliRunner().invoke(APP, ["-i", "x", "--output", str(tmp_path / "no" / "out.json")])
    assert done.exit_code == 2
    assert "--output" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--limit", "node1,node9"], "--limit: node9, the inventory has node1, node2"),
        (["--limit", ","], "--limit: empty"),
        (["--tier-nodes", "node7"], "--tier-nodes: node7, the inventory has"),
    ],
)
def test_an_option_that_names_no_node_is_exit_status_2(described: Site, arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(APP, ["-i", "x", "--json", *arguments])
    assert done.exit_code == 2
    assert said in done.stderr
    assert said in json.loads(done.stdout)["failures"][0]["seen"]


def test_an_inventory_that_cannot_be_described_is_exit_status_2(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(inventory: Path) -> Cluster:
        raise DescribeError("playbooks/describe.yml failed (exit 4)")

    monkeypatch.setattr(cli, "describe", fails)
    done = CliRunner().invoke(APP, ["-i", "x", "--json"])
    assert done.exit_code == 2
    document = json.loads(done.stdout)
    assert (document["ok"], document["verdict"]) == (False, "could_not_check")


def test_the_inventory_decides_on_the_tiers_unless_the_option_does(described: Site) -> None:
    described.document["verify"]["tiers"] = "always"
    done = CliRunner().invoke(APP, ["-i", "x", "--json", "--tiers", "never"])
    assert "--tiers never" in json.loads(done.stdout)["skipped"][0]["seen"]
    done = CliRunner().invoke(APP, ["-i", "x", "--json", "--seed", "abc"])
    tiers = json.loads(done.stdout)["tiers"]
    assert (tiers["ran"], tiers["seed"], len(tiers["steps"])) == (True, "abc", 3)


# -- small parts -----------------------------------------------------------------------------------


def test_prometheus_samples_sum_over_labels_and_absent_counters_are_0() -> None:
    samples = prometheus.parse(
        '# TYPE a counter\na{x="1",y="q\\"z"} 2.0\na{x="2"} 3e1 1700000000\nb NaN-ish\nc_total 4\n\n'
    )
    assert samples.total("a") == 32
    assert samples.total("a", x="1") == 2
    assert samples.total("missing") == 0
    assert samples.has("c_total")
    assert not samples.has("b")


def test_waiting_ends_with_the_condition_or_asks_once_more_at_the_deadline() -> None:
    answers = iter([None, None, "there"])
    assert wait.until(lambda: next(answers), 5, 0.001) == "there"
    asked: list[int] = []
    assert wait.until(lambda: asked.append(1), 0.05, 0.02) is None
    assert len(asked) >= 2
