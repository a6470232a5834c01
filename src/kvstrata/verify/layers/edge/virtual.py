"""The address that moves between router hosts: held by one of them, and answering."""

from __future__ import annotations

from collections.abc import Iterator

from kvstrata.cluster import Edge
from kvstrata.verify.check import Check, NotCheckedError, UnmetError
from kvstrata.verify.context import NodeContext, SiteContext
from kvstrata.verify.layers.edge.access import service


def checks(site: SiteContext) -> Iterator[Check]:
    """One row for the site; nothing where it has no such address."""
    edge = site.cluster.edge
    if edge is None or edge.virtual_address is None:
        return
    address = edge.virtual_address
    hosts = [node.name for node in site.cluster.nodes if node.edge is not None]
    yield site.question(
        "edge.virtual_address",
        f"virtual address {address}",
        f"held by one of {', '.join(hosts)}; answers there",
        f"ip addr show to {address} (on each of these)",
    ).ask(lambda: _held(site, edge, address))


def _held(site: SiteContext, edge: Edge, address: str) -> str:
    contexts = [ctx for ctx in site.contexts.values() if ctx.node.edge is not None]
    missing = [node.name for node in site.cluster.nodes if node.edge is not None and node.name not in site.contexts]
    holders = [ctx.node.name for ctx in contexts if _has(ctx, address)]
    if len(holders) > 1:
        raise UnmetError(f"held by {' and '.join(holders)}: clients reach now one, now the other")
    if not holders and missing:
        raise NotCheckedError(f"who holds it: none of those reached, and {', '.join(missing)} was not")
    if not holders:
        raise UnmetError("held by none of them")
    # From elsewhere where that is possible: a client's way to it is the network.
    asking = next((ctx for ctx in site.contexts.values() if ctx.node.name not in holders), contexts[0])
    code = service(asking, edge, address).status("/health")
    if code != 200:
        raise UnmetError(f"held by {holders[0]}; /health answers {code} to {asking.node.name}")
    said = f"held by {holders[0]}, 200 to {asking.node.name}"
    return said if not missing else f"{said}; NOT PROVEN, for it was not reached: that {', '.join(missing)} lacks it"


def _has(ctx: NodeContext, address: str) -> bool:
    return bool(ctx.shell.run(["ip", "-oneline", "address", "show", "to", address]).text())
