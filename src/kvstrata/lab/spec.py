"""What a lab is: its nodes, addresses and drives, checked before anything is touched."""

import re
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
_NAME = re.compile(r"[a-z][a-z0-9-]{0,15}")


@dataclass(frozen=True)
class LabSpec:
    """One lab. Sizes are in GiB; `memory_gib` None means no limit. Raises LabError for what cannot be."""

    name: str
    subnet: IPv4Network
    nodes: tuple[str, ...]
    drives: int = 2
    drive_gib: int = 4
    memory_gib: int | None = None
    suite: str = "bookworm"

    def __post_init__(self) -> None:
        """Check every field; the error names what was given and what is allowed."""
        for name in (self.name, *self.nodes):
            if not _NAME.fullmatch(name):
                raise LabError(f"name {name!r}: allowed are {_NAME.pattern}")
        if not 1 <= len(self.nodes) <= MAX_NODES:
            raise LabError(f"{len(self.nodes)} nodes: allowed are 1 to {MAX_NODES}")
        if len(set(self.nodes)) != len(self.nodes):
            raise LabError(f"node names {', '.join(self.nodes)}: each may be used once")
        if self.subnet.prefixlen > 24:
            raise LabError(f"subnet {self.subnet}: allowed are /24 and larger networks")
        if not 0 <= self.drives <= MAX_DRIVES:
            raise LabError(f"{self.drives} drives per node: allowed are 0 to {MAX_DRIVES}")
        if self.drive_gib not in DRIVE_GIB:
            raise LabError(f"drive size {self.drive_gib} GiB: allowed are {DRIVE_GIB.start} to {DRIVE_GIB.stop - 1}")
        if self.memory_gib is not None and self.memory_gib < 1:
            raise LabError(f"memory {self.memory_gib} GiB: allowed are 1 and more, or no limit")
        if self.suite not in SUITES:
            raise LabError(f"suite {self.suite!r}: allowed are {', '.join(SUITES)}")

    @property
    def network(self) -> str:
        """Name of the lab's podman network."""
        return f"kvstrata-{self.name}"

    def container(self, node: str) -> str:
        """Return the name of the node's podman container."""
        return f"kvstrata-{self.name}-{node}"

    def address(self, node: str) -> IPv4Address:
        """Return the node's fixed address."""
        return self.subnet.network_address + FIRST_HOST + 1 + self.nodes.index(node)

    def mac(self, node: str) -> str:
        """Return the node's fixed MAC: with a new one, neighbours' ARP caches stall SSH after a restart."""
        return "02:00:" + ":".join(f"{byte:02x}" for byte in self.address(node).packed)


@dataclass(frozen=True)
class Preset:
    """A named lab of the project: where it lives and what its nodes are called."""

    subnet: IPv4Network
    node_prefix: str


PRESETS = {
    "lab": Preset(IPv4Network("10.77.0.0/24"), "node"),
    "molecule": Preset(IPv4Network("10.78.0.0/24"), "m"),
}


def node_names(prefix: str, count: int) -> tuple[str, ...]:
    """Return `count` node names: prefix1, prefix2, ..."""
    return tuple(f"{prefix}{number}" for number in range(1, count + 1))


def preset(
    name: str,
    *,
    nodes: int = 2,
    drives: int = 2,
    drive_gib: int = 4,
    memory_gib: int | None = None,
    suite: str = "bookworm",
) -> LabSpec:
    """Return the lab `name` with so many nodes and drives; LabError for an unknown name or bad counts."""
    if name not in PRESETS:
        raise LabError(f"lab {name!r}: allowed are {', '.join(PRESETS)}")
    base = PRESETS[name]
    return LabSpec(name, base.subnet, node_names(base.node_prefix, nodes), drives, drive_gib, memory_gib, suite)
