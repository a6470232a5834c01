"""What of an edge is refused before a host is asked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kvstrata.preflight.edge import judge_client_networks, judge_edge, judge_edge_settings
from kvstrata.tls import Terms, ensure

NOW = datetime(2026, 11, 27, tzinfo=UTC)
HOSTS = {
    name: {"ansible_host": f"192.0.2.{number}", "kvstrata_fabric_address": f"10.0.0.{number}"}
    for number, name in enumerate(("n1", "n2", "n3"), start=1)
}
GOOD = {"self_signed": True, "api_keys": ["team-a"]}


def lines(edge: dict[str, Any] | None, *routers: str, **others: dict[str, Any] | None) -> list[str]:
    edges = {name: others.get(name, edge) for name in routers or ("n1",)}
    return [str(problem) for problem in judge_edge(edges, HOSTS, NOW)]


def only(edge: dict[str, Any] | None, *routers: str, **others: dict[str, Any] | None) -> str:
    (line,) = lines(edge, *routers, **others)
    return line


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    ensure(tmp_path, "test", ["10.0.0.1"], NOW, Terms(certificate=90))
    return {"certificate": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}


def test_a_site_without_an_edge_has_nothing_to_refuse() -> None:
    assert lines(None, "n1", "n2") == []


def test_each_way_of_tls_passes_alone(files: dict[str, str]) -> None:
    for way in ({"tls": files}, {"self_signed": True}, {"plaintext": True}):
        assert lines({**way, "api_keys": ["a"]}) == []


@pytest.mark.parametrize("ways", [{}, {"self_signed": True, "plaintext": True}, {"plaintext": False}])
def test_no_way_of_tls_and_two_are_refused(ways: dict[str, bool]) -> None:
    assert "allowed: one of tls" in only({**ways, "api_keys": ["a"]})


def test_neither_keys_nor_open_is_refused_and_both_are() -> None:
    assert "allowed: names in api_keys" in only({"self_signed": True})
    assert "allowed: names in api_keys" in only({**GOOD, "open": True})
    assert lines({"self_signed": True, "open": True}) == []


@pytest.mark.parametrize("name", ["", "Team", "a b", "../x", "x" * 33])
def test_a_name_of_a_key_that_is_no_file_name_is_refused(name: str) -> None:
    assert "n1: kvstrata_edge.api_keys[] is" in only({**GOOD, "api_keys": [name]})


def test_a_missing_certificate_is_refused_with_its_path(tmp_path: Path) -> None:
    line = only({"tls": {"certificate": f"{tmp_path}/c.pem", "key": f"{tmp_path}/k.pem"}, "api_keys": ["a"]})
    assert f"kvstrata_edge.tls is '{tmp_path}/c.pem'" in line
    assert "cannot be read: No such file" in line


def test_an_expired_certificate_and_one_that_is_not_valid_yet_are_refused(files: dict[str, str]) -> None:
    edges = {"n1": {"tls": files, "api_keys": ["a"]}}
    (late,) = judge_edge(edges, HOSTS, NOW + timedelta(days=91))
    assert "it ended 1 days ago" in str(late)
    (early,) = judge_edge(edges, HOSTS, NOW - timedelta(days=2))
    assert "it begins 2026-11-26" in str(early)


def test_a_virtual_address_needs_two_routers() -> None:
    edge = {**GOOD, "virtual_address": "10.0.0.100/24"}
    assert "only with two or more hosts in the group router" in only(edge, "n1")
    assert lines(edge, "n1", "n2") == []


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("10.0.0.100", "with its prefix length"),
        ("fd00::1/64", "an IPv4 address"),
        ("10.0.0.3/24", "it is that of n3"),
        ("somewhere", "an IPv4 address"),
    ],
)
def test_a_virtual_address_that_cannot_work_is_refused(address: str, why: str) -> None:
    found = lines({**GOOD, "virtual_address": address}, "n1", "n2")
    assert len(found) == 2
    assert all(why in line for line in found)


def test_two_virtual_addresses_are_refused() -> None:
    first, second = ({**GOOD, "virtual_address": f"10.0.0.{last}/24"} for last in (100, 101))
    assert all("the same on every router host" in line for line in lines(first, "n1", "n2", n2=second))


def test_one_address_for_two_hosts_is_refused_but_for_all_addresses() -> None:
    assert "an address of this host alone" in lines({**GOOD, "address": "203.0.113.1"}, "n1", "n2")[0]
    assert lines({**GOOD, "address": "0.0.0.0"}, "n1", "n2") == []  # noqa: S104 - a value, not bound


def test_an_edge_on_some_of_the_routers_is_refused() -> None:
    assert only(GOOD, "n1", "n2", n2=None).startswith("n2: kvstrata_edge is None; allowed: set for every host")


@pytest.mark.parametrize(
    ("name", "value"), [("edge_workers", 0), ("edge_vrid", 256), ("edge_max_body_mib", 5000), ("edge_status_port", 80)]
)
def test_numbers_out_of_range_are_refused(name: str, value: int) -> None:
    (problem,) = judge_edge_settings("n1", {name: value})
    assert (problem.variable, problem.given) == (name, value)


def test_a_renewal_at_every_run_is_refused() -> None:
    (problem,) = judge_edge_settings("n1", {"edge_certificate_days": 30})
    assert problem.variable == "edge_renew_days"


def test_what_is_no_network_is_refused() -> None:
    assert [
        problem.given for problem in judge_client_networks("n1", ["10.0.0.0/24", "10.0.0.1/24", "10.0.0.1", "x"])
    ] == [
        "10.0.0.1/24",
        "10.0.0.1",
        "x",
    ]
    assert judge_edge_settings("n1", {"edge_trusted_proxies": ["10.0.0.9"]})[0].variable == "edge_trusted_proxies"
