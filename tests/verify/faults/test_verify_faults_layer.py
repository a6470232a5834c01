"""The whole layer against a fake site whose services really go away, and come back or do not."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from kvstrata.cluster import Limits
from kvstrata.verify.check import Check, Status
from kvstrata.verify.context import SiteContext
from kvstrata.verify.faults import hits, layer, recovery, requests
from tests.verify.fakes import documents
from tests.verify.fakes.site import Code, Site

IDS = [
    "faults.before",
    "faults.store_killed",
    "faults.recovered",
    "faults.store",
    "faults.recovered",
    "faults.cache_killed",
    "faults.recovered",
    "faults.cache",
    "faults.recovered",
    "faults.engine_killed",
    "faults.recovered",
    "faults.engine",
    "faults.recovered",
    "faults.node",
    "faults.recovered",
]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer, "HOLD_S", 0.05)
    monkeypatch.setattr(layer, "HOLD_REQUESTS", 3)
    monkeypatch.setattr(layer, "BEFORE_REQUESTS", 3)
    monkeypatch.setattr(layer, "HITS_S", 0.3)
    monkeypatch.setattr(requests, "PACE_S", 0.01)
    monkeypatch.setattr(requests, "RESEND_S", 0.01)
    monkeypatch.setattr(recovery, "POLL_S", 0.02)
    monkeypatch.setattr(hits, "POLL_S", 0.02)
    monkeypatch.setattr(hits, "SETTLE_S", 0.3)


class Systemd:
    """The units of one fake node. `broken` never come back; what is killed comes back at once, as by systemd."""

    def __init__(self, site: Site, name: str) -> None:
        self.down: set[str] = set()
        self.broken: set[str] = set()
        self.runs: dict[str, int] = {}
        self.stopped: list[str] = []
        self.shell = site.nodes[name].shell
        self.shell.answers |= {
            "systemd-run": "",
            "systemctl reset-failed": "",
            "systemctl stop": self._stop,
            "systemctl start": self._start,
            "systemctl kill": self._kill,
            "systemctl show": self._show,
        }
        engine, cache = site.engine[name].routes, site.cache[name].routes
        self._while_up("vllm@0.service", engine, "/health", "/metrics", "/v1/completions")
        self._while_up("lmcache.service", cache, "/healthcheck", "/status", "/metrics")

    def _while_up(self, unit: str, routes: dict[str, Any], *paths: str) -> None:
        for path in paths:
            route = routes[path]
            routes[path] = lambda body, route=route: Code(503) if unit in self.down else route(body)

    def _stop(self, argv: Sequence[str]) -> str:
        units = [unit for unit in argv[3:] if unit.endswith(".service")]
        self.stopped += units
        self.down |= set(units)
        return ""

    def _start(self, argv: Sequence[str]) -> str:
        for unit in set(argv[3:]) & self.down - self.broken:
            self.down.discard(unit)
            self.runs[unit] = self.runs.get(unit, 0) + 1
        return ""

    def _kill(self, argv: Sequence[str]) -> str:
        self.stopped += argv[4:]
        self.down |= set(argv[4:])
        return self._start(["systemctl", "start", "--", *argv[4:]])

    def _show(self, argv: Sequence[str]) -> str:
        return "\n\n".join(
            f"Id={unit}\nActiveState={'inactive' if unit in self.down else 'active'}\n"
            f"SubState={'dead' if unit in self.down else 'running'}\nInvocationID={self.runs.get(unit, 0)}"
            for unit in argv[argv.index("--") + 1 :]
        )


class Rig:
    """The fake site with its systemd, and a router that gives requests to engines that are up, in turn."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.systemd = {name: Systemd(site, name) for name in site.nodes}
        self.blind = False
        self._turn = 0
        self._lock = threading.Lock()
        site.router.routes["/v1/completions"] = self.route
        site.router.routes["/workers"] = lambda body: {
            "workers": [
                {"url": f"http://{name}", "is_healthy": "vllm@0.service" not in systemd.down}
                for name, systemd in self.systemd.items()
            ]
        }

    def route(self, body: dict[str, Any]) -> object:
        with self._lock:
            up = [name for name, node in self.systemd.items() if self.blind or "vllm@0.service" not in node.down]
            self._turn += 1
            name = up[self._turn % len(up)]
        return self.site.engine[name].routes["/v1/completions"](body)

    def context(self, earlier: Sequence[Check] = (), **limits: float) -> SiteContext:
        cluster = self.site.cluster
        verify = replace(cluster.verify, limits=Limits(**({"recover_s": 2.0} | limits)))
        cluster = replace(cluster, verify=verify)
        contexts = {name: replace(self.site.context(name), cluster=cluster) for name in self.site.nodes}
        self.said: list[str] = []
        return SiteContext(cluster, contexts, earlier, self.said.append, 5, "seed")

    def run(self, earlier: Sequence[Check] = (), **limits: float) -> list[Check]:
        # Its only router is not stopped, which is a row of its own for each way to stop it.
        checks = list(layer.checks(self.context(earlier, **limits)))
        assert {check.status for check in checks if check.id in ROUTERS} == {Status.SKIP}
        return [check for check in checks if check.id not in ROUTERS]


ROUTERS = ("faults.router_killed", "faults.router")


@pytest.fixture
def rig(site: Site) -> Iterator[Rig]:
    rig = Rig(site)
    yield rig
    assert not any(systemd.down - systemd.broken for systemd in rig.systemd.values()), "something was left stopped"


def found(checks: Sequence[Check], check_id: str) -> Check:
    return next(check for check in checks if check.id == check_id)


def recovered(checks: Sequence[Check], fault: str) -> Check:
    return next(
        check for check in checks if check.id == "faults.recovered" and check.what.startswith(f"after {fault}:")
    )


def test_a_good_site_passes_every_fault_and_is_whole_afterwards(rig: Rig) -> None:
    checks = rig.run()
    assert [check.id for check in checks] == IDS
    assert [(check.id, check.seen) for check in checks if check.status is not Status.PASS] == []
    assert "1024 of 1024 tokens of a prompt that node1 stored came from the stores to node2" in checks[2].seen
    assert rig.systemd["node1"].stopped == []
    assert rig.systemd["node2"].stopped.count("kvrocks@d0.service") == 3


def test_it_says_what_it_will_stop_before_it_stops_anything(rig: Rig) -> None:
    site = rig.context()
    first = next(check for check in layer.checks(site) if check.id not in ROUTERS)
    assert first.id == "faults.before"
    assert rig.said[0].startswith("--faults STOPS SERVICES")
    assert "  faults.store: kvrocks@d0.service stopped on node2" in rig.said
    assert rig.said[7].endswith("(not node1, which has the only router)")
    assert not any(systemd.stopped for systemd in rig.systemd.values())


def test_on_a_site_that_is_not_well_nothing_is_stopped(rig: Rig) -> None:
    context = rig.context()
    bad = context.question("store.capacity", "d0", "room", "df").error("no answer")
    checks = rig.run([bad])
    assert {check.status for check in checks} == {Status.SKIP}
    assert len(checks) == 7
    assert "store.capacity did not pass" in checks[0].seen
    assert not any(systemd.stopped for systemd in rig.systemd.values())


def test_where_requests_fail_before_any_fault_nothing_is_stopped(rig: Rig) -> None:
    rig.site.router.routes["/v1/completions"] = lambda body: Code(503)
    checks = rig.run()
    assert checks[0].status is Status.FAIL
    assert {check.status for check in checks[1:]} == {Status.SKIP}
    assert not any(systemd.stopped for systemd in rig.systemd.values())


def test_a_router_that_sends_requests_to_a_dead_engine_is_named_and_nothing_else(rig: Rig) -> None:
    rig.blind = True
    checks = rig.run()
    assert {check.id for check in checks if check.status is Status.FAIL} == {"faults.engine", "faults.node"}
    assert "answered 503" in found(checks, "faults.engine").seen


def test_a_unit_that_systemd_does_not_restart_is_not_recovered_and_no_more_is_stopped(rig: Rig) -> None:
    rig.systemd["node2"].broken = {"lmcache.service"}
    # Long enough for the faults before it, on a busy machine.
    checks = rig.run(recover_s=4.0)
    seen = recovered(checks, "faults.cache_killed")
    assert seen.status is Status.FAIL
    assert "lmcache.service inactive (dead)" in seen.seen
    assert found(checks, "faults.cache").status is Status.SKIP
    assert "did not recover from faults.cache_killed" in found(checks, "faults.node").seen
    assert "vllm@0.service" not in rig.systemd["node2"].stopped


def test_a_breaker_that_stays_open_is_not_recovered(rig: Rig) -> None:
    adapter = documents.l2_adapter(up=False, last_failure="timeout")
    whole = rig.site.cache["node1"].routes["/status"]
    rig.site.cache["node1"].routes["/status"] = lambda body: {
        **whole(body),  # type: ignore[dict-item]
        "storage_manager": {"l2_adapters": [adapter]},
    }
    seen = recovered(rig.run(recover_s=0.2), "faults.store_killed")
    assert seen.status is Status.FAIL
    assert "breakers of node1: 10.9.0.11:6666 left alone (timeout)" in seen.seen


def test_stores_that_give_no_hits_any_more_are_not_recovered(rig: Rig) -> None:
    rig.site.nodes["node2"].loads = False
    seen = recovered(rig.run(recover_s=0.2), "faults.store_killed")
    assert seen.status is Status.FAIL
    assert "no hit from the stores" in seen.seen


def test_an_engine_that_lost_its_cache_is_not_recovered(rig: Rig) -> None:
    whole = rig.site.cache["node2"].routes["/status"]
    rig.site.cache["node2"].routes["/status"] = lambda body: {
        **whole(body),  # type: ignore[dict-item]
        "registered_non_cuda_instance_ids": [],
    }
    seen = recovered(rig.run(recover_s=0.2), "faults.store_killed")
    assert "engines of node2 in its LMCache: 0 of 1 registered" in seen.seen


def test_a_node_that_cannot_restore_itself_is_an_error_and_is_left_alone(rig: Rig) -> None:
    rig.systemd["node2"].shell.exits["systemd-run"] = 1
    checks = rig.run()
    assert found(checks, "faults.store").status is Status.ERROR
    assert recovered(checks, "faults.store").status is Status.SKIP
    assert rig.systemd["node2"].stopped == []


def test_ctrl_c_while_a_store_is_down_starts_it_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> bool:
        raise KeyboardInterrupt

    context = rig.context()
    checks = layer.checks(context)
    assert next(check for check in checks if check.id not in ROUTERS).id == "faults.before"
    monkeypatch.setattr(requests.Stream, "hold", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(checks)
    assert rig.systemd["node2"].stopped == ["kvrocks@d0.service"]


def test_every_request_is_kept_as_a_raw_sample(rig: Rig) -> None:
    context = rig.context()
    checks = list(layer.checks(context))
    rows = context.tables["faults"]
    for check in checks:
        if check.id.startswith("faults.recovered") or check.id in ROUTERS:
            continue
        name = "before" if check.id == "faults.before" else check.id
        assert sum(row["fault"] == name and row["sending"] == 1 for row in rows) == check.data["requests"]
    with_times = found(checks, "faults.store").data
    assert {"p50_s", "p95_s", "max_s", "fault_s", "answered"} <= set(with_times)
