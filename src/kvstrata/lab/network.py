"""The lab's podman network, and the refusal to take a subnet that is in use."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_network
from typing import Any

from kvstrata.lab import shell
from kvstrata.lab.errors import LabError


@dataclass(frozen=True)
class Used:
    """A subnet in use on this machine, and by what, in words."""

    subnet: IPv4Network
    by: str


def parse_routes(text: str) -> list[Used]:
    """Read `ip -json -4 route show table all`; default, local and broadcast routes take no subnet."""
    used = []
    for route in json.loads(text or "[]"):
        if route.get("type", "unicast") in ("unicast", "blackhole", "unreachable") and (
            route["dst"] not in ("default", "0.0.0.0/0")
        ):
            used.append(Used(_v4(route["dst"]), f"the route {route['dst']} via {route.get('dev', 'no interface')}"))
    return used


def parse_addresses(text: str) -> list[Used]:
    """Read `ip -json -4 address`."""
    return [
        Used(_v4(f"{address['local']}/{address['prefixlen']}"), f"the interface {link['ifname']}")
        for link in json.loads(text or "[]")
        for address in link.get("addr_info", ())
        if address["family"] == "inet"
    ]


def parse_networks(text: str) -> list[Used]:
    """Read `podman network inspect` of any networks."""
    return [
        Used(_v4(subnet["subnet"]), f"the podman network {network['name']}")
        for network in json.loads(text or "[]")
        for subnet in network.get("subnets") or ()
        if ":" not in subnet["subnet"]
    ]


def collision(subnet: IPv4Network, used: Iterable[Used]) -> Used | None:
    """Return the first of `used` that overlaps `subnet`."""
    return next((other for other in used if other.subnet.overlaps(subnet)), None)


def names() -> list[str]:
    """Return the names of all podman networks."""
    return shell.run(("podman", "network", "ls", "--format", "{{.Name}}")).split()


def _v4(text: str) -> IPv4Network:
    network = ip_network(text, strict=False)
    if not isinstance(network, IPv4Network):
        raise LabError(f"not an IPv4 network: {text}")
    return network


def _inspect(network_names: Iterable[str]) -> str:
    return shell.run(("podman", "network", "inspect", *network_names))


def _default_mtu() -> int | None:
    """MTU of the interface with the default route: a bridge with a larger one stalls downloads."""
    routes: list[dict[str, Any]] = json.loads(shell.run(("ip", "-json", "-4", "route", "show", "default")))
    if not routes or "dev" not in routes[0]:
        return None
    links: list[dict[str, Any]] = json.loads(shell.run(("ip", "-json", "link", "show", routes[0]["dev"])))
    return int(links[0]["mtu"])


def ensure(name: str, subnet: IPv4Network) -> bool:
    """Create the network unless it is there; return whether it was created.

    LabError when the subnet is taken, by an interface, a route or another podman network.
    """
    present = names()
    if name in present:
        (own,) = parse_networks(_inspect([name]))
        if own.subnet != subnet:
            raise LabError(f"podman network {name} has {own.subnet}, not {subnet}: remove it first")
        return False
    used = parse_routes(shell.run(("ip", "-json", "-4", "route", "show", "table", "all")))
    used += parse_addresses(shell.run(("ip", "-json", "-4", "address")))
    used += parse_networks(_inspect(present)) if present else []
    taken = collision(subnet, used)
    if taken:
        raise LabError(
            f"subnet {subnet} for the podman network {name} overlaps {taken.subnet} of {taken.by}: "
            "the lab needs it free"
        )
    # Nodes know each other by /etc/hosts, so podman's own name server would only be one more part.
    argv = ["podman", "network", "create", "--disable-dns", "--subnet", str(subnet)]
    mtu = _default_mtu()
    if mtu is not None:
        argv += ["--opt", f"mtu={mtu}"]
    shell.run((*argv, name))
    return True


def remove(name: str) -> bool:
    """Remove the network; return whether there was one."""
    if name not in names():
        return False
    shell.run(("podman", "network", "rm", "--force", name))
    return True
