"""How fast the drives wear: what is written, how often a day they are written over, how long they last."""

from __future__ import annotations

from dataclasses import dataclass

from kvstrata.plan.figures import Basis, Figure
from kvstrata.plan.nodes import Drive, Node

WRITE_AMPLIFICATION = Figure(
    1.25, Basis.MEASURED, "docs/offload.md, blob files without WAL; docs/bench-l2.md: 1.06-1.20"
)
# docs/bench-l2.md: stores that are on the drive reached 0.58 to 0.82 of the raw drive, at 3.24 CPU s/GiB.
STORE_SHARE = 0.82
CPU_S_PER_GIB = 3.24
_CPU_SHARE = 0.5
_DAY_S, _YEAR_DAYS = 86400, 365.25


@dataclass(frozen=True)
class Wear:
    """Of one drive, if the load goes on day and night."""

    drive: str
    tb_per_day: float
    """10^12 bytes that the store writes to it."""
    dwpd: float
    years: float | None
    """Until the rated TBW is written; None where no rating is known, or nothing is written."""


def writable_gbps(node: Node) -> float:
    """Return 10^9 bytes/s of KV that the stores of a node take; kvstrata.l2 drops what is beyond."""
    drives = sum(drive.write_gbps.value for drive in node.drives) * STORE_SHARE
    return min(drives, node.cpu_cores.value * _CPU_SHARE / CPU_S_PER_GIB * (1 << 30) / 1e9)


def wear_of(drives: tuple[Drive, ...], node_bytes_per_s: float) -> list[Wear]:
    """Return the wear of a node's drives.

    Args:
        drives: of one node. Placement spreads chunks evenly over all drives of the site, whatever their size.
        node_bytes_per_s: KV that each node's drives take, before amplification.
    """
    found = []
    for drive in drives:
        written = node_bytes_per_s / len(drives) * WRITE_AMPLIFICATION.value * _DAY_S
        years = None
        if drive.tbw is not None and written:
            years = drive.tbw.value * 1e12 / written / _YEAR_DAYS
        found.append(Wear(drive.name, written / 1e12, written / (drive.size_gb * 1e9), years))
    return found
