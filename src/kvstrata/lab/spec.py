"""What a lab is: its nodes, addresses and drives, checked before anything is touched."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from kvstrata.lab.errors import LabError

MAX_NODES = 8
MAX_DRIVES = 8
SUITES = ("bookworm", "trixie")
# Node k (from 1) of a lab has the address <network> + 10 + k.
FIRST_HOST = 10
# XFS refuses less than 300 MB; beyond 1 TiB a sparse file no longer says anything about the disk under it.
DRIVE_GIB = range(1, 1025)
_NAME = re.compile(r"[a-z][a-z-]{0,15}")


@dataclass(frozen=True)
class LabSpec:
    """One lab: `count` nodes called `node_prefix`1, `node_prefix`2, ...

    Sizes are in GiB; `memory_gib` None means no limit. Node k has the k-th of `suites`, those after it the last.
    Raises LabError naming what cannot be.
    """

    name: str
    subnet: IPv4Network
    node_prefix: str
    count: int = 2
    drives: int = 2
    drive_gib: int = 4
    memory_gib: int | None = None
    suites: tuple[str, ...] = SUITES[:1]

    def __post_init__(self) -> None:
        """Check every field; the error names what was given and what is allowed."""
        for what, name in (("lab name", self.name), ("node prefix", self.node_prefix)):
            if not _NAME.fullmatch(name):
                raise LabError(f"{what} {name!r}: allowed is {_NAME.pattern}")
        if not 1 <= self.count <= MAX_NODES:
            raise LabError(f"{self.count} nodes: allowed are 1 to {MAX_NODES}")
        if self.subnet.prefixlen > 24:
            raise LabError(f"subnet {self.subnet}: allowed are /24 and larger networks")
        if not 0 <= self.drives <= MAX_DRIVES:
            raise LabError(f"{self.drives} drives per node: allowed are 0 to {MAX_DRIVES}")
        if self.drive_gib not in DRIVE_GIB:
            allowed = f"{DRIVE_GIB.start} to {DRIVE_GIB.stop - 1}"
            raise LabError(f"drive size {self.drive_gib} GiB: allowed are {allowed}")
        if self.memory_gib is not None and self.memory_gib < 1:
            raise LabError(f"memory limit {self.memory_gib} GiB: allowed are 1 and more, or none")
        if not 1 <= len(self.suites) <= self.count:
            raise LabError(f"{len(self.suites)} suites for {self.count} nodes: allowed are 1 to one for each node")
        for suite in self.suites:
            if suite not in SUITES:
                raise LabError(f"suite {suite!r}: allowed are {', '.join(SUITES)}")

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes wanted."""
        return self.possible_nodes[: self.count]

    @property
    def possible_nodes(self) -> tuple[str, ...]:
        """Names of all nodes this lab could have; each has its address whether it is there or not."""
        return tuple(f"{self.node_prefix}{number}" for number in range(1, MAX_NODES + 1))

    def suite(self, node: str) -> str:
        """Return the Debian release of a node that this lab could have."""
        return self.suites[min(self.possible_nodes.index(node), len(self.suites) - 1)]

    @property
    def network(self) -> str:
        """Name of the lab's podman network."""
        return f"kvstrata-{self.name}"

    def container(self, node: str) -> str:
        """Return the name of the node's podman container."""
        return f"kvstrata-{self.name}-{node}"

    def address(self, node: str) -> IPv4Address:
        """Return the node's fixed address; LabError for a name that no node of this lab has."""
        if node not in self.possible_nodes:
            names = f"{self.possible_nodes[0]} to {self.possible_nodes[-1]}"
            raise LabError(f"node {node!r}: lab {self.name} names its nodes {names}")
        return self.subnet.network_address + FIRST_HOST + 1 + self.possible_nodes.index(node)

    def mac(self, node: str) -> str:
        """Return the node's fixed MAC: with a new one, neighbours' ARP caches stall SSH after a restart."""
        return "02:00:" + ":".join(f"{byte:02x}" for byte in self.address(node).packed)


@dataclass(frozen=True)
class Preset:
    """A lab of the project: where it lives and what its nodes are called."""

    subnet: IPv4Network
    node_prefix: str


PRESETS = {
    "lab": Preset(IPv4Network("10.77.0.0/24"), "node"),
    # Of molecule's scenarios, which know the addresses from molecule/shared/labs: two go on at a time.
    "molecule": Preset(IPv4Network("10.78.0.0/24"), "m"),
    "molecule-b": Preset(IPv4Network("10.79.0.0/24"), "m"),
}


def preset(
    name: str,
    *,
    nodes: int = 2,
    drives: int = 2,
    drive_gib: int = 4,
    memory_gib: int | None = None,
    suites: Sequence[str] = SUITES[:1],
) -> LabSpec:
    """Return the lab `name` with so many nodes and drives; LabError for an unknown name or bad counts."""
    if name not in PRESETS:
        raise LabError(f"lab {name!r}: allowed are {', '.join(PRESETS)}")
    base = PRESETS[name]
    return LabSpec(name, base.subnet, base.node_prefix, nodes, drives, drive_gib, memory_gib, tuple(suites))
