"""Which units to stop, on which nodes, and in which order. Nothing is contacted here."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from kvstrata.cluster import Cluster, Node


@dataclass(frozen=True)
class Fault:
    """One fault: `units` of `node` stopped together, or killed with SIGKILL.

    Requests go through the router on `via` meanwhile, or with `through_edge` through the edge there. `loses_in_flight`
    says whether a request under way may be lost: where the engine goes that computes it, for nothing else holds what it
    has computed so far, and where the router goes that carries it, for it is not sent twice behind a client's back.
    """

    id: str
    node: str
    units: tuple[str, ...]
    killed: bool
    via: str
    expected: str
    note: str = ""
    loses_in_flight: bool = False
    through_edge: bool = False

    @property
    def title(self) -> str:
        """What happens, in words that are the same in every run."""
        return f"{', '.join(self.units)} {'killed' if self.killed else 'stopped'} on {self.node}"


@dataclass(frozen=True)
class Omitted:
    """A fault that this site cannot show, and what is thereby not proven."""

    id: str
    title: str
    why: str


_ANSWERED = "every request answered in full, none failed"
STORE = f"{_ANSWERED}: what the store holds is a miss, and is computed"
CACHE = f"{_ANSWERED}: the engine computes by itself once the connector's short time-outs are over"
ENGINE = (
    "every request answered in full; one that the engine was computing may fail once and is answered when it is sent "
    "again, for nobody else holds its state; the router gives new ones to other engines"
)

# Of the three members of etcd.
QUORUM = 2
EDGE = (
    "every request answered in full; one that the router was carrying may fail once and is answered when it is sent "
    "again, for the edge sends nothing twice; it gives new ones to the other router"
)


def schedule(cluster: Cluster, names: Collection[str]) -> tuple[Fault | Omitted, ...]:
    """Every fault in the order in which they are made, the mildest first. `names` are the nodes that answer.

    A unit is killed before it is stopped: the start that ends the latter also ends systemd's count of restarts.
    """
    nodes = [node for node in cluster.nodes if node.name in names]
    routers = [node.name for node in nodes if node.router is not None]
    if not routers:
        why = "no router under verification that answers. Not proven here: that requests survive the loss of a service"
        return tuple(Omitted(id, title, why) for id, title in _TITLES.items())
    # Away from the router where that is possible: a client's path should be as long as it usually is.
    ordered = sorted(nodes, key=lambda node: node.name in routers)
    return (
        *_store(ordered, routers[0]),
        *_cache(ordered, routers[0]),
        *_engine(ordered, routers[0]),
        *_router(nodes, routers),
        _node(ordered, routers),
    )


_TITLES = {
    "faults.store_killed": "a store killed",
    "faults.store": "a store stopped",
    "faults.cache_killed": "a cache daemon killed",
    "faults.cache": "a cache daemon stopped",
    "faults.engine_killed": "an engine killed",
    "faults.engine": "an engine stopped",
    "faults.router_killed": "a router killed",
    "faults.router": "a router stopped",
    "faults.node": "a node stopped",
}


def _store(nodes: list[Node], via: str) -> Iterator[Fault | Omitted]:
    node = next((node for node in nodes if node.stores), None)
    ids = ("faults.store_killed", "faults.store")
    if node is None:
        yield from _omitted(
            ids, "the inventory has no store here. Not proven here: that requests survive a store's loss"
        )
        return
    for id in ids:
        yield Fault(id, node.name, (node.stores[0].unit,), id.endswith("killed"), via, STORE)


def _cache(nodes: list[Node], via: str) -> Iterator[Fault | Omitted]:
    node = next((node for node in nodes if node.lmcache and node.engines), None)
    ids = ("faults.cache_killed", "faults.cache")
    if node is None or node.lmcache is None:
        yield from _omitted(ids, "no engine here has LMCache. Not proven here: that requests survive its loss")
        return
    for id in ids:
        yield Fault(id, node.name, (node.lmcache.unit,), id.endswith("killed"), via, CACHE)


def _engine(nodes: list[Node], via: str) -> Iterator[Fault | Omitted]:
    ids = ("faults.engine_killed", "faults.engine")
    if sum(len(node.engines) for node in nodes) < 2:
        why = "one engine only, so nobody else could answer. Not proven here: that requests survive an engine's loss"
        yield from _omitted(ids, why)
        return
    node = next(node for node in nodes if node.engines)
    for id in ids:
        unit = node.engines[0].unit
        yield Fault(id, node.name, (unit,), id.endswith("killed"), via, ENGINE, loses_in_flight=True)


def _router(nodes: list[Node], routers: list[str]) -> Iterator[Fault | Omitted]:
    """A router, while clients ask the edge of its own host, or where there is none the other router."""
    ids = ("faults.router_killed", "faults.router")
    node = next(node for node in nodes if node.router is not None)
    if len(routers) < 2 or node.router is None:
        why = "one router only, so nobody else could answer. Not proven here: that requests survive a router's loss"
        yield from _omitted(ids, why)
        return
    through_edge = node.edge is not None
    via = node.name if through_edge else next(name for name in routers if name != node.name)
    expected = EDGE if through_edge else f"{_ANSWERED}: clients ask the other router"
    for id in ids:
        yield Fault(
            id,
            node.name,
            (node.router.unit,),
            id.endswith("killed"),
            via,
            expected,
            loses_in_flight=through_edge,
            through_edge=through_edge,
        )


def _node(nodes: list[Node], routers: list[str]) -> Fault | Omitted:
    """A whole node. One with the only router would take every request with it, so it is never that one."""
    id = "faults.node"

    members = sum(node.etcd is not None for node in nodes)

    def fits(node: Node) -> bool:
        others = [other for other in nodes if other is not node]
        # Without etcd workers and frontends end themselves, on every node.
        discovers = node.etcd is None or members > QUORUM
        return (
            discovers
            and any(name != node.name for name in routers)
            and any(other.engines for other in others)
            and bool(node.units)
        )

    node = next((node for node in nodes if fits(node)), None)
    if node is None:
        why = "beside the node of the only router or etcd none has engines. Not proven: that requests survive its loss"
        return Omitted(id, _TITLES[id], why)
    via = next(name for name in routers if name != node.name)
    kept = f"not {routers[0]}, which has the only router" if len(routers) == 1 and len(nodes) > 1 else ""
    return Fault(id, node.name, node.units, False, via, ENGINE, kept, loses_in_flight=bool(node.engines))


def _omitted(ids: tuple[str, ...], why: str) -> Iterator[Omitted]:
    for id in ids:
        yield Omitted(id, _TITLES[id], why)
