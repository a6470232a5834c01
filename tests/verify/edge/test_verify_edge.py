"""The edge: who is let in, to what, how answers arrive, and who holds its address."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvstrata.verify.check import Check, NotCheckedError, Status, UnmetError
from kvstrata.verify.context import SiteContext
from kvstrata.verify.layers import edge
from kvstrata.verify.layers.edge import stream, virtual
from kvstrata.verify.layers.edge.keys import PRIVATE
from tests.verify.fakes.site import Code, Site
from tests.verify.fakes.tls import Authority, TlsServer
from tests.verify.fakes.web import WebServer

KEY = "key-of-the-team"
VIRTUAL = "10.9.0.100"


class Edge:
    """The edge of node1, without TLS. It lets everybody in until it is told of a key."""

    def __init__(self, site: Site, server: WebServer) -> None:
        self.site, self.server = site, server
        self.leaks: tuple[str, ...] = ()
        site.document["edge"] = {
            "port": 8443,
            "plaintext": True,
            "ca": None,
            "names": [],
            "keys": [{"name": "team", "value": KEY}],
            "virtual_address": None,
        }
        host = site.document["nodes"][0]["ssh"]["host"]
        site.document["nodes"][0]["edge"] = {"unit": "kvstrata-edge.service", "host": host, "vrrp_unit": None}
        site.nodes["node1"].shell.ports[host, 8443] = server.port
        server.routes = {"/health": lambda body: "", **{path: self._hidden(path) for path in PRIVATE}}
        server.routes["/v1/models"] = lambda body: ""

    def _hidden(self, path: str) -> Any:
        return lambda body: "{}" if path in self.leaks else Code(404)

    def checks(self) -> dict[str, Check]:
        return {check.id: check for check in edge.checks(self.site.context())}


@pytest.fixture
def fake(site: Site) -> Iterator[Edge]:
    with WebServer() as server:
        yield Edge(site, server)


def asks_for_a_key(fake: Edge, right: str = KEY) -> None:
    fake.server.wanted = {"/v1/models": f"Bearer {right}"}


def test_a_node_without_an_edge_has_no_rows(site: Site) -> None:
    assert list(edge.checks(site.context())) == []


def test_keys_are_asked_for_and_each_of_them_opens(fake: Edge) -> None:
    asks_for_a_key(fake)
    check = fake.checks()["edge.keys"]
    assert check.status is Status.PASS
    assert check.seen == "401 without a key and with a wrong one, 200 with team"


def test_an_edge_that_lets_everybody_in_is_named(fake: Edge) -> None:
    check = fake.checks()["edge.keys"]
    assert check.status is Status.FAIL
    assert check.seen == "200 without a key; 200 with a wrong key; 200 with a part of a key"


def test_a_key_that_opens_nothing_is_named_without_its_value(fake: Edge) -> None:
    asks_for_a_key(fake, right="another key")
    check = fake.checks()["edge.keys"]
    assert check.seen == "401 with the key team"
    assert all(KEY not in str(vars(one)) for one in fake.checks().values())


def test_an_edge_that_is_open_says_so(fake: Edge) -> None:
    fake.site.document["edge"]["keys"] = []
    check = fake.checks()["edge.keys"]
    assert check.status is Status.PASS
    assert "anybody may ask" in check.seen


def test_what_is_not_the_api_is_closed(fake: Edge) -> None:
    assert fake.checks()["edge.closed"].status is Status.PASS
    fake.leaks = ("/workers", "/metrics")
    check = fake.checks()["edge.closed"]
    assert check.status is Status.FAIL
    assert check.seen == "/workers answers 200; /metrics answers 200"


def test_an_edge_without_tls_says_what_that_means(fake: Edge) -> None:
    check = fake.checks()["edge.certificate"]
    assert check.status is Status.SKIP
    assert "prompts, answers and keys can be read" in check.seen


def test_where_it_does_not_answer_nothing_else_is_a_fault(fake: Edge) -> None:
    fake.server.routes["/health"] = lambda body: Code(503)
    checks = fake.checks()
    assert checks["edge.health"].seen == "/health answers 503"
    assert {check.status for name, check in checks.items() if name != "edge.health"} == {Status.SKIP}


@pytest.mark.parametrize(
    ("days", "names", "told", "seen", "status"),
    [
        (90, ["10.9.0.11"], True, "trusted", Status.PASS),
        (90, [], True, "trusted", Status.PASS),
        (90, ["10.9.0.11", "10.9.0.100"], True, "clients refuse it as 10.9.0.100", Status.FAIL),
        (-3, ["10.9.0.11"], True, "expired 3.0 days ago", Status.FAIL),
        (3, ["10.9.0.11"], True, "expires in 3.0 days", Status.FAIL),
        (90, ["10.9.0.11"], False, "this machine does not know who signed it", Status.SKIP),
    ],
)
def test_certificates_are_judged_as_clients_do(
    fake: Edge, tmp_path: Path, days: float, names: list[str], told: bool, seen: str, status: Status
) -> None:
    authority = Authority()
    (tmp_path / "ca.pem").write_text(authority.pem)
    said = fake.site.document["edge"]
    said |= {"plaintext": False, "ca": str(tmp_path / "ca.pem") if told else None, "names": names}
    with TlsServer(authority.issue(tmp_path, "10.9.0.11", days)) as server:
        fake.site.nodes["node1"].shell.ports["10.9.0.11", 8443] = server.port
        check = fake.checks()["edge.certificate"]
    assert check.status is status
    assert seen in check.seen


def test_an_authority_that_cannot_be_read_is_an_error(fake: Edge, tmp_path: Path) -> None:
    fake.site.document["edge"] |= {"plaintext": False, "ca": str(tmp_path / "none.pem")}
    check = fake.checks()["edge.certificate"]
    assert check.status is Status.ERROR
    assert "none.pem: No such file" in check.seen


TOKENS = [0.1 + place * 0.01 for place in range(20)]


def test_tokens_that_arrive_as_they_are_made_pass() -> None:
    data: dict[str, Any] = {}
    assert "20 events over 190 ms" in stream.judge(TOKENS, TOKENS, data)
    assert data["events"] == 20


def test_tokens_that_arrive_together_do_not() -> None:
    together = [0.3 + place * 1e-5 for place in range(20)]
    with pytest.raises(UnmetError, match="something holds them back"):
        stream.judge(TOKENS, together, {})


def test_an_answer_that_is_too_quick_to_tell_is_not_judged() -> None:
    quick = [0.1 + place * 1e-4 for place in range(20)]
    with pytest.raises(NotCheckedError, match="not proven"):
        stream.judge(quick, quick, {})


def test_an_answer_of_one_event_is_told() -> None:
    with pytest.raises(UnmetError, match="1 events came through the edge, 20 from the router"):
        stream.judge(TOKENS, [0.1], {})


def site_context(site: Site) -> SiteContext:
    contexts = {name: site.context(name) for name in site.nodes}
    return SiteContext(site.cluster, contexts, [], lambda text: None, 5, "seed")


def held_by(fake: Edge, *names: str) -> Check:
    nodes = fake.site.document["nodes"]
    nodes[1]["edge"] = {**nodes[0]["edge"], "host": nodes[1]["ssh"]["host"]}
    fake.site.document["edge"]["virtual_address"] = VIRTUAL
    for name, node in fake.site.nodes.items():
        node.shell.answers["ip -oneline address show to 10.9.0.100"] = "2: eth0 inet" if name in names else ""
        node.shell.ports[VIRTUAL, 8443] = fake.server.port
    (check,) = virtual.checks(site_context(fake.site))
    return check


def test_a_virtual_address_is_held_by_one_host_and_answers_the_others(fake: Edge) -> None:
    check = held_by(fake, "node2")
    assert check.status is Status.PASS
    assert check.seen == "held by node2, 200 to node1"


def test_two_holders_or_none_are_told(fake: Edge) -> None:
    assert held_by(fake, "node1", "node2").seen.startswith("held by node1 and node2")
    assert held_by(fake).seen == "held by none of them"


def test_a_site_without_a_virtual_address_has_no_row(fake: Edge) -> None:
    assert list(virtual.checks(site_context(fake.site))) == []
