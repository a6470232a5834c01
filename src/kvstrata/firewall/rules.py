"""The table of nftables: pure text, from what the inventory says."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

TABLE = "kvstrata"
_PORTS = range(1, 65536)


@dataclass(frozen=True)
class Firewall:
    """Who may open connections to which ports of a node. What is not named is left to whoever else filters."""

    nodes: Sequence[str]
    """Addresses of all nodes: they reach every port of each other."""
    ports: Sequence[int] = ()
    """Internal ports: open to nodes alone."""
    ranges: Sequence[Sequence[int]] = ()
    """Internal ports from the first to the last, for services that choose theirs themselves."""
    client_ports: Sequence[int] = ()
    """Open to nodes and to `client_networks`; to everybody where these are None."""
    client_networks: Sequence[str] | None = None
    open_ports: Sequence[int] = ()
    """Open to everybody, even within `ranges`: SSH, and the edge."""
    vrrp: bool = False
    """Whether VRRP is let in from nodes alone, for it has no password of any worth."""

    def check(self) -> None:
        """Refuse what would cut off an operator, or what nftables would not take.

        Raises:
            ValueError: with what is wrong.
        """
        if not self.nodes:
            raise ValueError("no address of a node: every connection between nodes would be refused")
        for address in self.nodes:
            ip_address(address)
        for network in self.client_networks or ():
            ip_network(network)
        pairs = [*self.ranges, *((port, port) for port in (*self.ports, *self.client_ports, *self.open_ports))]
        for first, last in pairs:
            if first not in _PORTS or last not in _PORTS or first > last:
                raise ValueError(f"{first} to {last} are no ports")
        closed = sorted({*self.open_ports} & {*self.ports, *self.client_ports})
        if closed:
            raise ValueError(f"port {closed[0]} is both open to everybody (SSH or the edge) and internal")


def render(firewall: Firewall) -> str:
    """Return a file for `nft -f` that puts our table in place of the one before, at once, and touches no other.

    The name of an empty chain tells the digest of the rules: what runs can then be compared with what is written.

    Raises:
        ValueError: as `Firewall.check` does.
    """
    firewall.check()
    chain = _chain(firewall)
    digest = digest_of(chain)
    return (
        f"table inet {TABLE}\ndelete table inet {TABLE}\n\ntable inet {TABLE} {{\n"
        f"    chain rules_{digest} {{\n    }}\n\n{chain}}}\n"
    )


def digest_of(text: str) -> str:
    """Return 16 hex digits that tell one set of rules from another."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _chain(firewall: Firewall) -> str:
    lines = [
        # Before other filters at the usual priority, which still judge whatever is accepted here.
        "type filter hook input priority filter - 5; policy accept;",
        "ct state established,related accept",
        'iifname "lo" accept',
    ]
    if firewall.open_ports:
        lines.append(f"tcp dport {_set(firewall.open_ports)} accept")
    lines += [f"{family} saddr {{ {', '.join(nodes)} }} accept" for family, nodes in _families(firewall.nodes) if nodes]
    if firewall.client_ports:
        ports = _set(firewall.client_ports)
        if firewall.client_networks is None:
            lines.append(f"tcp dport {ports} accept")
        else:
            networks = _families(firewall.client_networks)
            lines += [
                f"{family} saddr {{ {', '.join(some)} }} tcp dport {ports} accept" for family, some in networks if some
            ]
            lines.append(f"tcp dport {ports} counter drop")
    if firewall.ports:
        lines.append(f"tcp dport {_set(firewall.ports)} counter drop")
    lines += [f"tcp dport {first}-{last} counter drop" for first, last in firewall.ranges]
    if firewall.vrrp:
        lines.append("ip protocol 112 counter drop")
    return "    chain input {\n" + "".join(f"        {line}\n" for line in lines) + "    }\n"


def _set(ports: Sequence[int]) -> str:
    return f"{{ {', '.join(str(port) for port in sorted(set(ports)))} }}"


def _families(entries: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return IPv4's and IPv6's entries, each sorted and once, without networks that others hold."""
    found = []
    for family, version in (("ip", 4), ("ip6", 6)):
        networks = {ip_network(entry) for entry in entries if ip_network(entry).version == version}
        alone = [one for one in networks if not any(one != other and one.subnet_of(other) for other in networks)]  # type: ignore[arg-type]
        found.append((family, [_written(str(one)) for one in sorted(alone, key=_key)]))
    return found


def _key(network: object) -> str:
    return str(network)


def _written(network: str) -> str:
    """Return a single address without its prefix length, as nftables prints it."""
    return network.removesuffix("/32") if "." in network else network.removesuffix("/128")
