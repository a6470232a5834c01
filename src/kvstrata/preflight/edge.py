"""Rules over the edge: what clients reach, with TLS, API keys and an address that moves."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from ipaddress import AddressValueError, IPv4Interface, NetmaskValueError, ip_address, ip_network
from pathlib import Path
from typing import Any

from kvstrata.preflight.problem import Problem
from kvstrata.tls import Pair, PairError

_KEY_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_DNS_NAME = re.compile(
    r"(\*\.)?([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
)
_INTERFACE = re.compile(r"[^\s/]{1,15}")
_ANY = ("0.0.0.0", "::")  # noqa: S104 - looked for, not bound
_RANGES = {
    "edge_status_port": (1024, 65535),
    "edge_vrid": (1, 255),
    "edge_workers": (1, 256),
    "edge_connections": (64, 65536),
    "edge_max_body_mib": (1, 4096),
    "edge_connect_timeout_s": (1, 75),
    "edge_read_timeout_s": (1, 86400),
    "edge_retry_after_s": (1, 3600),
    "edge_drain_timeout_s": (1, 86400),
    "edge_stop_timeout_s": (1, 86400),
    "edge_certificate_days": (2, 3650),
    "edge_renew_days": (1, 3649),
}


def judge_edge_settings(where: str, given: Mapping[str, Any]) -> list[Problem]:
    """Return what is wrong with the variables edge_* of `given`; those that are missing have their defaults."""
    problems = []
    for name, (lowest, highest) in _RANGES.items():
        value = given.get(name)
        if value is not None and not lowest <= int(value) <= highest:
            problems.append(Problem(where, name, value, f"{lowest} to {highest}"))
    days, renew = int(given.get("edge_certificate_days", 365)), int(given.get("edge_renew_days", 30))
    if not problems and renew >= days:
        allowed = f"less than edge_certificate_days ({days}), or every run would renew"
        problems.append(Problem(where, "edge_renew_days", renew, allowed))
    for network in given.get("edge_trusted_proxies", []):
        if not _is_network(network):
            problems.append(Problem(where, "edge_trusted_proxies", network, "networks, as 10.0.0.0/24"))
    return problems


def judge_edge(
    edges: Mapping[str, Mapping[str, Any] | None], hosts: Mapping[str, Mapping[str, Any]], now: datetime
) -> list[Problem]:
    """Return what is wrong with the edge of a site.

    Args:
        edges: `kvstrata_edge` of each router host, None where there is none.
        hosts: of each node its ansible_host and kvstrata_fabric_address.
        now: with its time zone.
    """
    without = [name for name, edge in edges.items() if edge is None]
    if len(without) == len(edges):
        return []
    problems = []
    if without:
        allowed = "set for every host of the group router, or for none"
        problems.append(Problem(" and ".join(without), "kvstrata_edge", None, allowed))
    given = {name: edge for name, edge in edges.items() if edge is not None}
    for name, edge in given.items():
        problems += [*_tls(name, edge, now), *_keys(name, edge), *_address(name, edge, given, hosts)]
        problems += _virtual_address(name, edge, edges, hosts)
    return problems


def judge_client_networks(where: str, networks: Sequence[object]) -> list[Problem]:
    """Return a problem for each entry of kvstrata_client_networks that is no network."""
    return [
        Problem(where, "kvstrata_client_networks", network, "networks without host bits, as 10.0.0.0/24")
        for network in networks
        if not _is_network(network)
    ]


def _tls(where: str, edge: Mapping[str, Any], now: datetime) -> Iterator[Problem]:
    ways = [name for name in ("tls", "self_signed", "plaintext") if edge.get(name)]
    if len(ways) != 1:
        allowed = (
            "one of tls (certificate and key, files on the controller), self_signed: true (the controller makes them) "
            "and plaintext: true (no TLS)"
        )
        yield Problem(where, "kvstrata_edge", f"with {' and '.join(ways) or 'none of them'}", allowed)
        return
    for name in edge.get("names") or []:
        if not _DNS_NAME.fullmatch(str(name)) and not _is_address(name):
            yield Problem(where, "kvstrata_edge.names", name, "host names and addresses")
    if edge.get("tls"):
        files = edge["tls"]
        certificate = Path(str(files["certificate"])).expanduser()
        try:
            pair = Pair.read(certificate, Path(str(files["key"])).expanduser())
        except PairError as error:
            # Not the variable of the key: a message that names a key hides what was given.
            yield Problem(where, "kvstrata_edge.tls", str(certificate), f"a certificate and its key ({error})")
            return
        left = pair.days_left(now)
        if left < 0:
            ended = f"one that is still valid; it ended {-left:.0f} days ago"
            yield Problem(where, "kvstrata_edge.tls.certificate", str(certificate), ended)
        elif pair.certificate.not_valid_before_utc > now:
            begins = f"one that is valid already; it begins {pair.certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
            yield Problem(where, "kvstrata_edge.tls.certificate", str(certificate), begins)


def _keys(where: str, edge: Mapping[str, Any]) -> Iterator[Problem]:
    names = [str(name) for name in edge.get("api_keys") or []]
    if bool(names) == bool(edge.get("open")):
        allowed = (
            "names in api_keys (each gets a key, kept on the controller), or open: true (anybody may ask), not both"
        )
        yield Problem(where, "kvstrata_edge", f"api_keys {names} with open {bool(edge.get('open'))}", allowed)
    for name in names:
        if not _KEY_NAME.fullmatch(name):
            yield Problem(where, "kvstrata_edge.api_keys[]", name, "1 to 32 characters of a-z, 0-9, _ and -")
        if names.count(name) > 1:
            yield Problem(where, "kvstrata_edge.api_keys[]", name, "each name once")


def _address(
    where: str,
    edge: Mapping[str, Any],
    edges: Mapping[str, Mapping[str, Any]],
    hosts: Mapping[str, Mapping[str, Any]],
) -> Iterator[Problem]:
    address = edge.get("address")
    if address is None:
        return
    if not _is_address(address):
        yield Problem(where, "kvstrata_edge.address", address, "an address of the host, or 0.0.0.0 for all")
        return
    others = [name for name, other in edges.items() if name != where and other.get("address") == address]
    if others and address not in _ANY:
        allowed = (
            f"an address of this host alone ({', '.join(others)} has the same), 0.0.0.0, or none: the fabric address"
        )
        yield Problem(where, "kvstrata_edge.address", address, allowed)
    taken = [name for name in hosts if name != where and address == hosts[name]["kvstrata_fabric_address"]]
    if taken and not others:
        yield Problem(where, "kvstrata_edge.address", address, f"an address of this host; it is that of {taken[0]}")


def _virtual_address(
    where: str,
    edge: Mapping[str, Any],
    edges: Mapping[str, Mapping[str, Any] | None],
    hosts: Mapping[str, Mapping[str, Any]],
) -> Iterator[Problem]:
    interface = edge.get("interface")
    if interface is not None and not _INTERFACE.fullmatch(str(interface)):
        yield Problem(where, "kvstrata_edge.interface", interface, "the name of an interface, as eth0")
    given = edge.get("virtual_address")
    if given is None:
        return
    variable = "kvstrata_edge.virtual_address"
    try:
        address = IPv4Interface(str(given))
    except (AddressValueError, NetmaskValueError, ValueError):
        yield Problem(where, variable, given, "an IPv4 address with its prefix length, as 10.0.0.100/24")
        return
    if "/" not in str(given):
        yield Problem(where, variable, given, f"with its prefix length, as {given}/24")
    if len(edges) == 1:
        yield Problem(
            where, variable, given, "only with two or more hosts in the group router: one has nobody to hand it to"
        )
    owners = [
        name
        for name, host in hosts.items()
        if str(address.ip) in (host["kvstrata_fabric_address"], host["ansible_host"])
    ]
    if owners:
        yield Problem(where, variable, given, f"an address that no host has for itself; it is that of {owners[0]}")
    if len({str(other.get("virtual_address")) for other in edges.values() if other is not None}) > 1:
        yield Problem(where, variable, given, "the same on every router host")


def _is_address(given: object) -> bool:
    try:
        ip_address(str(given))
    except ValueError:
        return False
    return True


def _is_network(given: object) -> bool:
    try:
        ip_network(str(given))
    except ValueError:
        return False
    return "/" in str(given)
