from ipaddress import IPv4Network
from pathlib import Path

import pytest

from kvstrata.lab import network, shell
from kvstrata.lab.errors import LabError
from kvstrata.lab.network import Used, collision, parse_addresses, parse_networks, parse_routes

ROUTES = (Path(__file__).parent / "fixtures" / "routes.json").read_text()
ADDRESSES = (
    '[{"ifname":"lo","addr_info":[{"family":"inet","local":"127.0.0.1","prefixlen":8}]},'
    '{"ifname":"virbr0","addr_info":[{"family":"inet","local":"10.77.0.1","prefixlen":16}]}]'
)
NETWORKS = '[{"name":"podman","subnets":[{"subnet":"10.88.0.0/16"}]},{"name":"v6","subnets":[{"subnet":"fd00::/64"}]}]'
LAB = IPv4Network("10.77.0.0/24")


def test_default_local_and_broadcast_routes_take_no_subnet() -> None:
    assert [str(used.subnet) for used in parse_routes(ROUTES)] == ["10.64.0.0/12", "192.0.2.0/24"]


def test_a_wider_route_collides_and_is_named() -> None:
    assert collision(LAB, parse_routes(ROUTES)) == Used(IPv4Network("10.64.0.0/12"), "the route 10.64.0.0/12 via wg0")


def test_an_interface_collides_and_is_named() -> None:
    assert collision(LAB, parse_addresses(ADDRESSES)) == Used(IPv4Network("10.77.0.0/16"), "the interface virbr0")


def test_another_podman_network_collides_and_is_named() -> None:
    taken = collision(IPv4Network("10.88.3.0/24"), parse_networks(NETWORKS))
    assert taken is not None
    assert taken.by == "the podman network podman"


def test_a_free_subnet_collides_with_nothing() -> None:
    used = parse_routes(ROUTES) + parse_networks(NETWORKS)
    assert collision(IPv4Network("172.20.0.0/24"), used) is None


def test_a_taken_subnet_is_refused_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(argv: tuple[str, ...], **_: object) -> str:
        assert "create" not in argv
        return {"route": ROUTES, "address": "[]"}.get(argv[3], "") if argv[0] == "ip" else ""

    monkeypatch.setattr(shell, "run", run)
    with pytest.raises(LabError, match=r"10\.77\.0\.0/24 .* overlaps 10\.64\.0\.0/12 of the route"):
        network.ensure("kvstrata-lab", LAB)
