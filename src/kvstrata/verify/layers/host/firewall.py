"""Whether the site's internal ports are closed to this machine, which is none of its nodes."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from functools import partial

from kvstrata.cluster import Firewall, Node, Profile
from kvstrata.verify import direct, units
from kvstrata.verify.check import Check, NotCheckedError, UnmetError
from kvstrata.verify.context import NodeContext
from kvstrata.verify.layers.host.survey import Survey
from kvstrata.verify.shell import Reach

TIMEOUT_S = 2.0
# Linux takes ports from here (net.ipv4.ip_local_port_range), and roles/firewall closes them.
EPHEMERAL = (32768, 60999)


def checks(ctx: NodeContext, _survey: Survey) -> Iterator[Check]:
    """One row where the inventory wants a firewall."""
    firewall = ctx.cluster.firewall
    if firewall is not None:
        yield ctx.question(
            "host.firewall",
            "ports from the outside",
            "none of the site's internal ports answers this machine",
            ctx.command("nft list table inet kvstrata"),
        ).ask(partial(_closed, ctx, firewall))


def internal(node: Node, clients_too: bool) -> dict[tuple[str, int], str]:
    """Where the node listens for others of the site alone, and what it is; its router too where clients are none."""
    found: dict[tuple[str, int], str] = {}
    for store in node.stores:
        found[store.host, store.port] = store.unit
        if store.tls_port is not None:
            found[store.host, store.tls_port] = f"{store.unit} (TLS)"
    for engine in node.engines:
        found[engine.host, engine.port] = engine.unit
        if engine.rpc_port is not None:
            found[engine.host, engine.rpc_port] = f"{engine.unit} (requests)"
        if engine.event_port is not None:
            found[engine.host, engine.event_port] = f"{engine.unit} (KV events)"
    if node.etcd is not None:
        found[node.etcd.host, node.etcd.port] = node.etcd.unit
    if node.router is not None and clients_too:
        found[node.router.host, node.router.port] = node.router.unit
    return found


def _closed(ctx: NodeContext, firewall: Firewall) -> str:
    unit = units.states(ctx.shell, [firewall.unit]).get(firewall.unit)
    if unit is None or unit.active != "active" or unit.enabled != "enabled":
        raise UnmetError(f"{firewall.unit} is {unit.active if unit else 'unknown'}, {unit.enabled if unit else ''}")
    own = direct.own_address(ctx.node.fabric_host)
    if own is None:
        raise NotCheckedError(f"this machine has no way to {ctx.node.fabric_host}: that its ports are closed")
    friends = {address for node in ctx.cluster.nodes for address in (node.fabric_host, node.ssh.host)}
    if own in friends:
        raise NotCheckedError(f"this machine is a node of the site ({own}): that others find its ports closed")
    client = _within(own, firewall.client_networks)
    ports = internal(ctx.node, clients_too=not client) | _chosen_by_kernel(ctx)
    control = (ctx.node.fabric_host, ctx.node.ssh.port)
    found = direct.reach([*ports, control], TIMEOUT_S)
    opened = [f"{host}:{port} {ports[host, port]}" for host, port in ports if found[host, port] is Reach.OPEN]
    if opened:
        raise UnmetError(f"open to {own}: {', '.join(opened)}")
    if found[control] is Reach.SILENT:
        raise NotCheckedError(f"not even sshd at {control[0]} answers {own}: that a firewall closes the ports")
    besides = "; it is a client, to whom the router is open" if client else ""
    return f"{len(ports)} ports closed to {own}{besides}"


def _chosen_by_kernel(ctx: NodeContext) -> dict[tuple[str, int], str]:
    """Where Dynamo's ZMQ sockets listen: on all addresses, each at a port that nobody chose."""
    if ctx.cluster.profile is not Profile.DYNAMO:
        return {}
    first, last = EPHEMERAL
    ports = {int(line.split()[3].rpartition(":")[2]) for line in ctx.shell.run(["ss", "-Hltn"]).text().splitlines()}
    return {(ctx.node.fabric_host, port): "a port that the kernel chose" for port in ports if first <= port <= last}


def _within(address: str, networks: Sequence[str]) -> bool:
    found = ipaddress.ip_address(address)
    return any(found in ipaddress.ip_network(network, strict=False) for network in networks)
