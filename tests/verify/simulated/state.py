"""What is true of a simulated site. Plain data: what is set here is what commands and services answer from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kvstrata.cluster import Cluster, Node, parse

GIB = 1 << 30
RELEASE = "/opt/kvstrata/releases/r1"
DRIVE_BYTES = 1000 * GIB
# What the nvme role measured of each drive, in MB/s.
DRIVE_MBPS = 6800.0


@dataclass
class FakeNode:
    """One node. The fields after `name` are the ways in which it may be wrong; as made, it is right."""

    name: str
    silent: bool = False
    """It takes TCP connections and never says a word."""
    hangs: str | None = None
    """The first words of a command that never ends, as `systemctl show`."""
    clock_offset_s: float = 0.0
    mounted: str = "right"
    """What lies where its drive should: `right`, another `drive`, a `folder` of the system's own, or `nothing`."""
    drive_share: float = 1.0
    """How fast its drive reads, as a share of what was recorded."""
    lost_share: float = 0.0
    """Of the TCP segments that it sends, those that are lost."""
    memory_node: int = 0
    """The NUMA node that its store runs on; it is told 0."""
    given_up: bool = False
    """Whether its LMCache has given up this node's own store, which is well."""
    namespace: str | None = None
    """What its LMCache files chunks under; None is what the inventory says."""
    weights: int = 0
    """Which weights lie in its model's folder and answer requests."""
    connector: bool = True
    """Whether its engine was started with LMCache's connector."""
    certificate_days: float = 90.0
    """Days that its store's certificate is still valid."""
    edge_certificate_days: float = 90.0
    """Days that its edge's certificate is still valid."""
    etcd_ill: bool = False
    """Whether its etcd says that it is not well."""
    lost_worker: bool = False
    """Whether its router has lost one of the engines."""
    holds_address: bool = False
    """Whether it has the site's virtual address, without being the first router host."""
    full: bool = False
    """Whether its store refuses writes because its files have reached their bound."""


@dataclass
class FakeSite:
    """A site: its document as Ansible would render it, and its nodes' states by name."""

    document: dict[str, Any]
    nodes: dict[str, FakeNode]
    affinity: bool = True
    """Whether the router sends a conversation where it was before."""
    policy: str = "cache_aware"
    """By which policy the router says it chooses."""
    tells_events: bool = True
    """Whether routers hear what enters the engines' caches."""
    edge_asks_for_keys: bool = True
    """Whether the edge lets nobody in without an API key."""
    edge_passes_all: bool = False
    """Whether the edge passes on more than the API."""
    edge_holds_back: bool = False
    """Whether the edge keeps an answer until it is complete."""
    unknown: list[str] = field(default_factory=list)
    """Commands and requests that nothing here knows."""

    @classmethod
    def of(cls, document: dict[str, Any]) -> FakeSite:
        """A site where all is as its document says."""
        return cls(document, {node["name"]: FakeNode(node["name"]) for node in document["nodes"]})

    def cluster(self) -> Cluster:
        """The model that the verifier has of it."""
        return parse(self.document)


@dataclass
class Machine:
    """A node at work: what the inventory says of it, how it really is, and what it has."""

    site: FakeSite
    cluster: Cluster
    node: Node
    state: FakeNode
    files: dict[str, Callable[[], str]] = field(default_factory=dict)
    """Text files by path."""
    on_restart: dict[str, Callable[[], None]] = field(default_factory=dict)
    """What a unit forgets when it is started again."""
    invocations: dict[str, int] = field(default_factory=dict)
    """How often each unit was started again."""
    stopped: set[str] = field(default_factory=set)

    @property
    def namespace(self) -> str:
        """What its LMCache files chunks under."""
        told = self.node.lmcache.namespace if self.node.lmcache else None
        return self.state.namespace or told or ""

    @property
    def holds_address(self) -> bool:
        """Whether the site's virtual address is here: on the first router host, as long as all is well."""
        first = next((node.name for node in self.cluster.nodes if node.edge is not None), None)
        return self.state.holds_address or self.node.name == first

    def pid(self, unit: str) -> int:
        """The main process of a unit."""
        return 1000 + 100 * self.node.units.index(unit) + self.invocations.get(unit, 0)

    def restart(self, unit: str) -> None:
        """Start a unit again, or for the first time after a stop."""
        self.stopped.discard(unit)
        self.invocations[unit] = self.invocations.get(unit, 0) + 1
        self.on_restart.get(unit, lambda: None)()
