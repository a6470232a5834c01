"""What is measured of moved conversations, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kvstrata.bench.errors import BenchError
from kvstrata.bench.moved import run, throughput
from kvstrata.bench.moved.record import Case, Throughput, Turn
from kvstrata.bench.moved.replicas import Pair
from kvstrata.bench.moved.table import load_lines, turn_lines
from kvstrata.cli import app
from kvstrata.verify import wait
from kvstrata.verify.check import UnmetError
from tests.bench.moved.fakes import FakeSite

NODES = ("node1", "node2")
SETTINGS = run.Settings(conversations=2, repeats=2, prompt_tokens=1024, output_tokens=4, load=0)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvstrata.bench.moved.replicas.QUIET_S", 0.01)
    monkeypatch.setattr("kvstrata.bench.moved.replicas.REST_S", 0.01)


def _turns(site: FakeSite, settings: run.Settings = SETTINGS) -> list[Turn]:
    return list(run.measure(Pair(site.site, NODES), settings, "s", site.said.append))


def test_every_case_is_measured_with_each_node_as_home(site: FakeSite) -> None:
    turns = _turns(site)
    assert len(turns) == 2 * 2 * 3
    moves = {(turn.case, turn.came_from, turn.went_to) for turn in turns}
    assert moves == {
        (Case.STAYED, "node1", "node1"),
        (Case.STAYED, "node2", "node2"),
        (Case.DRAINED, "node1", "node2"),
        (Case.DRAINED, "node2", "node1"),
        (Case.FRESH, None, "node1"),
        (Case.FRESH, None, "node2"),
    }
    assert len({turn.seed for turn in turns}) == len(turns)


def test_counters_tell_the_tiers(site: FakeSite) -> None:
    for turn in _turns(site):
        if turn.case is Case.STAYED:
            assert turn.own_cache >= 1024
            assert turn.l2 == 0
        elif turn.case is Case.DRAINED:
            assert turn.own_cache == 0
            assert turn.l2 >= 1024
        else:
            assert turn.own_cache == turn.l2 == 0
            assert turn.computed == turn.prompt_tokens


def test_all_replicas_are_back_in_service_afterwards(site: FakeSite) -> None:
    _turns(site)
    assert len(site.router.workers) == 2


def test_they_are_back_after_a_failure_too(site: FakeSite) -> None:
    site.router.astray = next(iter(site.router.nodes))
    with pytest.raises(UnmetError, match="only node2 is in service"):
        _turns(site)
    assert len(site.router.workers) == 2


def test_under_load_the_router_decides(site: FakeSite) -> None:
    settings = run.Settings(conversations=1, repeats=1, prompt_tokens=1024, output_tokens=4, load=2)
    cases = [(turn.case, turn.went_to) for turn in _turns(site, settings)][-2:]
    assert cases == [(Case.LOAD_MOVED, "node2"), (Case.LOAD_FRESH, "node2")]
    # The load is broken off; the router notices with what it sends next.
    assert wait.until(lambda: sum(site.router.busy.values()) == 0 or None, 5, 0.01)


def test_a_router_that_keeps_it_is_told_too(site: FakeSite) -> None:
    site.router.sticky = True
    settings = run.Settings(conversations=1, repeats=1, prompt_tokens=1024, output_tokens=4, load=1)
    assert _turns(site, settings)[-2].case is Case.LOAD_STAYED


def test_a_load_over_one_node_and_over_both(site: FakeSite) -> None:
    settings = throughput.LoadSettings(requests=4, concurrency=2, prompt_tokens=64, output_tokens=3, repeats=1)
    loads = list(throughput.measure(Pair(site.site, NODES), settings, "s", site.said.append))
    assert [load.nodes for load in loads] == [("node1",), ("node2",), NODES]
    assert [(load.requests, load.failed, load.output_tokens) for load in loads] == [(4, 0, 12)] * 3
    assert len(site.router.workers) == 2


def test_what_was_measured_before_a_failure_is_kept(site: FakeSite) -> None:
    # The first node's turns are measured, then nobody obeys any more.
    found: list[Turn] = []
    pair = Pair(site.site, NODES)
    turns = run.measure(pair, SETTINGS, "s", site.said.append)
    found.append(next(turns))
    site.router.astray = next(iter(site.router.nodes))
    with pytest.raises(UnmetError):
        found.extend(turns)
    assert [turn.case for turn in found] == [Case.STAYED, Case.STAYED]


def test_with_dynamo_nothing_can_be_moved(site: FakeSite) -> None:
    site.stack.document["profile"] = "dynamo"
    with pytest.raises(BenchError, match="kvstrata_serving_profile is dynamo; allowed: router"):
        Pair(site.site, NODES)


def test_two_nodes_are_needed_and_a_router(site: FakeSite) -> None:
    with pytest.raises(BenchError, match="allowed: two with one replica each"):
        Pair(site.site, ("node1",))
    site.stack.document["nodes"][0]["router"] = None
    with pytest.raises(BenchError, match="no router"):
        Pair(site.site, NODES)


def test_lines_are_medians_in_the_order_of_the_cases() -> None:
    def turn(case: Case, ttft_s: float) -> Turn:
        return Turn(case, 0, "s", None, "n", ttft_s, 100, 1, 2, 3, 94)

    lines = turn_lines([turn(Case.FRESH, 9), turn(Case.STAYED, 1), turn(Case.STAYED, 3), turn(Case.STAYED, 2)])
    assert lines[0] == ["not moved", "3", "2.00 s", "1.00 to 3.00 s", "100", "1", "2", "3", "94"]
    assert lines[1][0] == "in no cache"


def test_two_nodes_are_compared_with_the_better_one() -> None:
    def load(nodes: tuple[str, ...], wall_s: float) -> Throughput:
        return Throughput(nodes, 0, "s", 10, 0, wall_s, 1000, 100)

    lines = load_lines([load(("a",), 10), load(("b",), 5), load(("a", "b"), 4)])
    assert [line[-1] for line in lines] == ["0.50", "1.00", "1.25"]
    assert lines[2][4:6] == ["25.0", "275"]


class TestCommand:
    """The command line around it."""

    @pytest.fixture(autouse=True)
    def _described(self, site: FakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "cluster.json").write_text(json.dumps(site.stack.document))
        self.folder = tmp_path
        hosts = {node["ssh"]["host"]: site.stack.shells[node["name"]] for node in site.stack.document["nodes"]}
        monkeypatch.setattr("kvstrata.drain.site.SshShell", lambda ssh: hosts[ssh.host])

    def test_it_prints_and_writes_what_it_found(self) -> None:
        words = [
            "bench",
            "moved",
            "--cluster",
            str(self.folder / "cluster.json"),
            "--conversations",
            "1",
            "--load",
            "0",
        ]
        words += ["--repeats", "1", "--requests", "2", "--output", str(self.folder / "o.json")]
        done = CliRunner().invoke(app, [*words, "--markdown", str(self.folder / "o.md")])
        assert done.exit_code == 0, done.output
        assert "moved by a drain" in done.stdout
        assert "share its cores" in done.stdout
        document = json.loads((self.folder / "o.json").read_text())
        assert [turn["case"] for turn in document["turns"]] == ["not moved", "moved by a drain", "in no cache"]
        assert document["versions"]["node1"] == {"release": "r1", "lmcache": "0.5.6", "vllm": "0.31.0"}
        assert "| node1 and node2 |" in (self.folder / "o.md").read_text()

    def test_a_run_that_is_ended_writes_what_it_has_and_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def ended(*_: object) -> Iterator[Throughput]:
            raise SystemExit(143)
            yield

        monkeypatch.setattr("kvstrata.bench.moved.throughput.measure", ended)
        words = [
            "bench",
            "moved",
            "--cluster",
            str(self.folder / "cluster.json"),
            "--conversations",
            "1",
            "--load",
            "0",
        ]
        words += ["--repeats", "1", "--requests", "2", "--output", str(self.folder / "o.json")]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 1, done.output
        document = json.loads((self.folder / "o.json").read_text())
        assert len(document["turns"]) == 3
        assert "INCOMPLETE: it was ended" in document["notes"]

    def test_nodes_that_do_not_fit_are_refused(self) -> None:
        words = ["bench", "moved", "--cluster", str(self.folder / "cluster.json"), "--nodes", "node1,node9"]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 2
        assert "--nodes is node1,node9; allowed" in done.stderr
