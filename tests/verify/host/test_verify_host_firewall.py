"""Internal ports as somebody meets them who belongs to no node, and the site's etcd."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence

import pytest

from kvstrata.verify import direct
from kvstrata.verify.check import Check, Layer, Status
from kvstrata.verify.layers.host import firewall
from kvstrata.verify.shell import Reach
from tests.verify.fakes.shell import closed_port
from tests.verify.fakes.site import Site
from tests.verify.test_verify_layers import ask


class World:
    """What this machine meets: `open` ports, `sshd` whether the node answers at all, `own` its address."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open: set[int] = set()
        self.sshd = Reach.OPEN
        self.own: str | None = "10.8.0.1"
        self.tried: set[int] = set()
        monkeypatch.setattr(direct, "reach", self._reach)
        monkeypatch.setattr(direct, "own_address", lambda host: self.own)

    def _reach(self, targets: Sequence[tuple[str, int]], timeout_s: float) -> dict[tuple[str, int], Reach]:
        self.tried = {port for _, port in targets}
        found = {target: Reach.OPEN if target[1] in self.open else Reach.SILENT for target in targets}
        return found | {target: self.sshd for target in targets if target[1] == 22}


@pytest.fixture
def world(site: Site, monkeypatch: pytest.MonkeyPatch) -> World:
    site.document["firewall"] = {"unit": "kvstrata-firewall.service", "client_networks": ["10.7.0.0/16"]}
    return World(monkeypatch)


def asked(site: Site) -> Check:
    return ask(site, Layer.HOST, "host.firewall")


def test_without_a_firewall_there_is_no_row(site: Site) -> None:
    with pytest.raises(StopIteration):
        asked(site)


def test_closed_ports_pass_and_the_router_is_among_them(site: Site, world: World) -> None:
    check = asked(site)
    assert check.status is Status.PASS
    assert check.seen == "3 ports closed to 10.8.0.1"
    assert world.tried == {22, 6666, 8000, 9000}


def test_an_open_port_is_named_with_what_listens_there(site: Site, world: World) -> None:
    world.open = {8000}
    check = asked(site)
    assert check.status is Status.FAIL
    assert check.seen == "open to 10.8.0.1: 10.9.0.11:8000 vllm@0.service"


def test_to_a_client_the_router_may_be_open(site: Site, world: World) -> None:
    world.own, world.open = "10.7.3.4", {9000}
    check = asked(site)
    assert check.status is Status.PASS
    assert "to whom the router is open" in check.seen


def test_every_socket_of_dynamo_that_the_kernel_chose_is_tried(site: Site, world: World) -> None:
    site.document["profile"] = "dynamo"
    site.nodes["node1"].shell.answers["ss -Hltn"] = (
        "LISTEN 0 100 0.0.0.0:41233 0.0.0.0:*\nLISTEN 0 128 0.0.0.0:22 0.0.0.0:*\nLISTEN 0 100 [::]:52001 [::]:*\n"
    )
    world.open = {52001}
    check = asked(site)
    assert {41233, 52001} <= world.tried
    assert check.seen == "open to 10.8.0.1: 10.9.0.11:52001 a port that the kernel chose"


@pytest.mark.parametrize(
    ("own", "sshd", "why"),
    [
        ("10.9.0.12", Reach.OPEN, "this machine is a node of the site (10.9.0.12)"),
        (None, Reach.OPEN, "this machine has no way to 10.9.0.11"),
        ("10.8.0.1", Reach.SILENT, "not even sshd at 10.9.0.11 answers"),
    ],
)
def test_what_proves_nothing_is_said(site: Site, world: World, own: str | None, sshd: Reach, why: str) -> None:
    world.own, world.sshd = own, sshd
    check = asked(site)
    assert check.status is Status.SKIP
    assert why in check.seen


def test_a_unit_that_is_not_there_is_a_failure(site: Site, world: World) -> None:
    site.nodes["node1"].units["kvstrata-firewall.service"] = "LoadState=not-found\nActiveState=inactive"
    assert asked(site).status is Status.FAIL


def test_this_machine_tells_open_ports_from_closed_ones() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listening, closed = ("127.0.0.1", listener.getsockname()[1]), ("127.0.0.1", closed_port())
        found = direct.reach([listening, closed], 2.0)
    assert found == {listening: Reach.OPEN, closed: Reach.REFUSED}
    assert direct.own_address("127.0.0.1") == "127.0.0.1"


def test_ports_of_a_worker_are_internal_too(site: Site) -> None:
    site.document["nodes"][0]["engines"][0] |= {"rpc_port": 9200, "event_port": 20080}
    found = firewall.internal(site.cluster.nodes[0], clients_too=False)
    assert {port for _, port in found} == {6666, 8000, 9200, 20080}


# -- etcd --------------------------------------------------------------------------------------------


def with_etcd(site: Site, *told: tuple[str, bool], exit_code: int = 0) -> Check:
    folder = "/etc/kvstrata/etcd"
    for node in site.document["nodes"]:
        node["etcd"] = {
            "unit": "kvstrata-etcd.service",
            "host": node["ssh"]["host"],
            "port": 2379,
            "ca": f"{folder}/ca.pem",
            "certificate": f"{folder}/client.pem",
            "key": f"{folder}/client.key",
        }
    shell, start = site.nodes["node1"].shell, "env ETCDCTL_API=3 etcdctl --endpoints=https://10.9.0.11:2379"
    shell.answers[start] = json.dumps([{"endpoint": f"https://{host}:2379", "health": well} for host, well in told])
    shell.exits[start] = exit_code
    return ask(site, Layer.HOST, "host.etcd")


def test_members_that_are_well_and_closed_to_strangers_pass(site: Site) -> None:
    check = with_etcd(site, ("10.9.0.11", True), ("10.9.0.12", True))
    assert check.status is Status.PASS
    assert check.seen == "2 members, all healthy; no answer without a certificate"


def test_members_that_are_ill_or_missing_are_named(site: Site) -> None:
    check = with_etcd(site, ("10.9.0.11", False), ("10.9.0.13", True), exit_code=1)
    assert check.status is Status.FAIL
    assert check.seen == (
        "missing https://10.9.0.12:2379; unknown https://10.9.0.13:2379; unhealthy https://10.9.0.11:2379"
    )


def test_what_etcdctl_says_instead_is_told(site: Site) -> None:
    with_etcd(site)
    start = "env ETCDCTL_API=3 etcdctl --endpoints=https://10.9.0.11:2379"
    site.nodes["node1"].shell.answers[start] = "context deadline exceeded"
    assert ask(site, Layer.HOST, "host.etcd").seen == "etcdctl said: context deadline exceeded"


def test_an_etcd_that_answers_strangers_is_named(site: Site) -> None:
    site.nodes["node1"].shell.ports["10.9.0.11", 2379] = site.router.port
    check = with_etcd(site, ("10.9.0.11", True), ("10.9.0.12", True))
    assert check.seen == "it answers 200 without TLS"
