"""What drain, undrain and --status do to routers, engines and units."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from kvstrata.cli import app
from kvstrata.drain import cli
from kvstrata.drain.errors import NotDoneError, RefusedError
from kvstrata.drain.leave import Leaving, drain
from kvstrata.drain.rejoin import undrain
from kvstrata.drain.replicas import Replica, chosen, every
from kvstrata.drain.status import Seen, status
from kvstrata.verify.http import UnansweredError
from tests.drain.fakes import FakeSite
from tests.verify.fakes.shell import closed_port

QUICK = Leaving(timeout_s=2, quiet_s=0.05, poll_s=0.01)


def _of(site: FakeSite, *names: str) -> tuple[Replica, ...]:
    return chosen(site.cluster, names)


def test_a_node_is_all_of_its_replicas_and_each_is_taken_once(site: FakeSite) -> None:
    assert [one.name for one in _of(site, "node2", "node2/0", "node1/0")] == ["node2/0", "node1/0"]


def test_an_unknown_target_is_refused_with_those_that_there_are(site: FakeSite) -> None:
    with pytest.raises(RefusedError, match=r"node1/1 names no replica; allowed: .* one of node1/0, node2/0"):
        _of(site, "node1/1")


def test_the_routers_are_told_first_and_then_the_requests_awaited(site: FakeSite) -> None:
    site.engines["node2"].loads = [2, 1, 0]
    drain(site.site, _of(site, "node2"), QUICK)
    assert list(site.router.workers) == [site.url("node1")]
    assert site.said[:2] == ["the router on node1 chooses node2/0 no more", "node2/0: 2 running, 0 waiting"]
    assert site.said[-1] == "node2/0 has no request left"
    assert site.ran("node2") == []


def test_one_quiet_moment_is_not_enough(site: FakeSite) -> None:
    # A request that a router sent before it was told may arrive after the first look.
    site.engines["node2"].loads = [0, 1, 1, 0]
    drain(site.site, _of(site, "node2"), QUICK)
    assert "node2/0: 1 running, 0 waiting" in site.said
    assert site.engines["node2"].asked > 4


def test_requests_that_do_not_end_are_named_and_the_replica_stays_out(site: FakeSite) -> None:
    site.engines["node2"].loads = [3]
    with pytest.raises(NotDoneError, match=r"node2/0 gets no new requests, but after 0\.1 s it has 3 running"):
        drain(site.site, _of(site, "node2"), Leaving(timeout_s=0.1, quiet_s=0.01, poll_s=0.01))
    assert site.url("node2") not in site.router.workers


def test_an_engine_that_is_down_has_no_requests(site: FakeSite) -> None:
    site.engines["node2"].mute = True
    site.state["node2"][0] = "failed"
    drain(site.site, _of(site, "node2"), QUICK)
    assert site.url("node2") not in site.router.workers


def test_an_engine_without_metrics_is_not_taken_for_idle(site: FakeSite) -> None:
    site.engines["node2"].mute = True
    with pytest.raises(NotDoneError, match="no metrics"):
        drain(site.site, _of(site, "node2"), Leaving(timeout_s=0.05, quiet_s=0.01, poll_s=0.01))


def test_the_last_healthy_replica_is_refused_and_nothing_changed(site: FakeSite) -> None:
    site.router.workers[site.url("node1")] = False
    with pytest.raises(RefusedError, match="without node2/0 the router on node1 would have no healthy replica"):
        drain(site.site, _of(site, "node2"), QUICK)
    with pytest.raises(RefusedError):
        drain(site.site, every(site.cluster), QUICK)
    assert site.router.orders == []


def test_force_takes_the_last_one_too(site: FakeSite) -> None:
    drain(site.site, every(site.cluster), Leaving(2, force=True, quiet_s=0.01, poll_s=0.01))
    assert site.router.workers == {}


def test_a_replica_that_is_out_already_is_drained_again_to_wait_on(site: FakeSite) -> None:
    drain(site.site, _of(site, "node2"), QUICK)
    drain(site.site, _of(site, "node2"), QUICK)
    assert list(site.router.workers) == [site.url("node1")]


def test_a_router_that_cannot_be_asked_is_a_refusal_for_it_may_go_on_sending(site: FakeSite) -> None:
    site.shells["node1"].ports[site.document["nodes"][0]["ssh"]["host"], 9000] = closed_port()
    with pytest.raises(RefusedError, match=r"the router on node1 can't be asked: .*--force"):
        drain(site.site, _of(site, "node2"), QUICK)
    drain(site.site, _of(site, "node2"), Leaving(2, force=True, quiet_s=0.01, poll_s=0.01))


def test_a_router_that_goes_on_choosing_it_is_an_error(site: FakeSite) -> None:
    site.router.obeys = False
    with pytest.raises(UnansweredError, match="still lists"):
        drain(site.site, _of(site, "node2"), QUICK)


def test_stop_stops_the_unit_after_its_requests(site: FakeSite) -> None:
    drain(site.site, _of(site, "node2"), Leaving(2, stop=True, quiet_s=0.01, poll_s=0.01))
    assert site.ran("node2") == ["systemctl stop -- vllm@0.service"]


def test_undrain_starts_what_is_stopped_and_puts_it_back(site: FakeSite) -> None:
    drain(site.site, _of(site, "node2"), Leaving(2, stop=True, quiet_s=0.01, poll_s=0.01))
    undrain(site.site, _of(site, "node2"), 2, 0.01)
    assert site.ran("node2")[-1] == "systemctl start -- vllm@0.service"
    assert site.router.workers[site.url("node2")]


def test_undrain_of_one_in_service_changes_nothing(site: FakeSite) -> None:
    undrain(site.site, _of(site, "node2"), 2, 0.01)
    assert site.router.orders == []
    assert site.ran("node2") == []


def test_an_engine_that_does_not_become_healthy_stays_out(site: FakeSite) -> None:
    drain(site.site, _of(site, "node2"), QUICK)
    site.engines["node2"].health = 503
    with pytest.raises(NotDoneError, match=r"node2/0 is not healthy after 0\.05 s, and stays out"):
        undrain(site.site, _of(site, "node2"), 0.05, 0.01)
    assert site.url("node2") not in site.router.workers


def test_a_router_that_does_not_take_it_back_is_named(site: FakeSite) -> None:
    drain(site.site, _of(site, "node2"), QUICK)
    site.router.obeys = False
    with pytest.raises(NotDoneError, match=r"router on node1 did not take node2/0 back: .*503"):
        undrain(site.site, _of(site, "node2"), 1, 0.01)


def test_status_tells_who_is_in_service(site: FakeSite) -> None:
    site.engines["node1"].loads = [4]
    drain(site.site, _of(site, "node2"), QUICK)
    first, second = status(site.site)
    assert first.in_service
    assert first.load is not None
    assert first.load.running == 4
    assert second.routers == {"node1": Seen.OUT}
    assert not second.in_service
    assert second.as_json()["routers"] == {"node1": "drained"}


def test_status_bears_a_node_and_a_router_that_do_not_answer(site: FakeSite) -> None:
    site.shells["node1"].unreachable = "no route"
    site.router.workers[site.url("node2")] = False
    first, _ = status(site.site)
    assert first.unit == "no answer"
    assert not first.in_service


class TestDynamo:
    """A worker takes itself out of service when systemd stops it."""

    @pytest.fixture
    def dynamo(self, tmp_path: Path) -> Iterator[FakeSite]:
        with FakeSite(tmp_path, profile="dynamo") as made:
            yield made

    def test_draining_is_stopping_and_no_router_is_asked(self, dynamo: FakeSite) -> None:
        drain(dynamo.site, _of(dynamo, "node2"), QUICK)
        assert dynamo.ran("node2") == ["systemctl stop -- vllm@0.service"]
        assert dynamo.router.orders == []

    def test_one_that_systemd_had_to_kill_is_told(self, dynamo: FakeSite) -> None:
        dynamo.state["node2"][1] = "timeout"
        with pytest.raises(NotDoneError, match=r"not in order \(result timeout\): requests .* may have failed"):
            drain(dynamo.site, _of(dynamo, "node2"), QUICK)

    def test_the_last_healthy_one_is_refused(self, dynamo: FakeSite) -> None:
        dynamo.engines["node1"].health = 503
        with pytest.raises(RefusedError, match="without node2/0 the site would have no healthy replica"):
            drain(dynamo.site, _of(dynamo, "node2"), QUICK)
        assert dynamo.ran("node2") == []

    def test_undrain_starts_it_and_awaits_its_health(self, dynamo: FakeSite) -> None:
        drain(dynamo.site, _of(dynamo, "node2"), QUICK)
        undrain(dynamo.site, _of(dynamo, "node2"), 2, 0.01)
        assert dynamo.ran("node2")[-1] == "systemctl start -- vllm@0.service"


class TestCommand:
    """The command line around it."""

    @pytest.fixture(autouse=True)
    def _described(self, site: FakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "cluster.json").write_text(json.dumps(site.document))
        self.cluster = str(tmp_path / "cluster.json")
        hosts = {node["ssh"]["host"]: site.shells[node["name"]] for node in site.document["nodes"]}
        monkeypatch.setattr("kvstrata.drain.site.SshShell", lambda ssh: hosts[ssh.host])
        monkeypatch.setattr("kvstrata.drain.leave.QUIET_S", 0.01)

    def _run(self, *words: str) -> Result:
        return CliRunner().invoke(app, [*words, "--cluster", self.cluster])

    def test_drain_and_undrain(self, site: FakeSite) -> None:
        done = self._run("drain", "node2/0")
        assert done.exit_code == cli.Exit.DONE, done.output
        assert "node2/0 drained. It stays out until undrain puts it back, or a router restarts" in done.stderr
        assert self._run("undrain", "node2").exit_code == cli.Exit.DONE
        assert site.router.workers[site.url("node2")]

    def test_status_as_table_and_as_json(self) -> None:
        shown = self._run("drain", "--status")
        assert shown.exit_code == cli.Exit.DONE
        assert "2 of 2 in service" in shown.stdout
        document = json.loads(self._run("drain", "--status", "--json").stdout)
        assert [row["in_service"] for row in document["replicas"]] == [True, True]

    def test_a_refusal_is_exit_1_and_says_why(self) -> None:
        refused = self._run("drain", "node1", "node2")
        assert refused.exit_code == cli.Exit.REFUSED
        assert "REFUSED" in refused.stderr

    def test_neither_replica_nor_status_is_an_error(self) -> None:
        wrong = self._run("drain")
        assert wrong.exit_code == cli.Exit.UNREACHABLE
        assert "give either NODE[/REPLICA]... or --status" in wrong.stderr
        assert self._run("undrain").exit_code == cli.Exit.UNREACHABLE

    def test_an_unreachable_node_is_exit_2(self, site: FakeSite) -> None:
        site.shells["node2"].unreachable = "no route to host"
        gone = self._run("undrain", "node2")
        assert gone.exit_code == cli.Exit.UNREACHABLE
        assert "no route to host" in gone.stderr


def test_a_site_without_routers_has_nobody_to_tell(site: FakeSite) -> None:
    site.document["nodes"][0]["router"] = None
    with pytest.raises(RefusedError, match="no router"):
        drain(site.site, _of(site, "node2"), QUICK)
