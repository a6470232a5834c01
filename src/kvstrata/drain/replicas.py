"""Which replicas are meant by NODE or NODE/REPLICA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvstrata.cluster import Cluster, Engine, Node
from kvstrata.drain.errors import RefusedError


@dataclass(frozen=True)
class Replica:
    """One engine and the node it is on."""

    node: Node
    engine: Engine

    @property
    def number(self) -> str:
        """Its id in the inventory, the part of its unit's name between @ and the suffix."""
        return self.engine.unit.partition("@")[2].removesuffix(".service")

    @property
    def name(self) -> str:
        """As it is given on the command line."""
        return f"{self.node.name}/{self.number}"

    @property
    def url(self) -> str:
        """As the routers know it."""
        return self.engine.url


def every(cluster: Cluster) -> tuple[Replica, ...]:
    """All replicas of a site, in the order of its inventory."""
    return tuple(Replica(node, engine) for node in cluster.nodes for engine in node.engines)


def chosen(cluster: Cluster, targets: Sequence[str]) -> tuple[Replica, ...]:
    """The replicas that `targets` name, each once; RefusedError when one names none."""
    known = every(cluster)
    found: dict[str, Replica] = {}
    for target in targets:
        meant = [replica for replica in known if target in (replica.name, replica.node.name)]
        if not meant:
            names = ", ".join(replica.name for replica in known) or "no replica at all"
            raise RefusedError(f"{target} names no replica; allowed: a node that has some, or one of {names}")
        found |= {replica.name: replica for replica in meant}
    return tuple(found.values())
