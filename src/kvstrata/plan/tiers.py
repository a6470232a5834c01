"""The tiers below HBM: how fast each delivers KV to a node's replicas, what it holds, and whether loading pays.

A tier is limited by the slowest part of its way. For each part, 10^9 bytes/s of stored KV for the whole node:

| tier | part | rate |
|---|---|---|
| DRAM | GPU links | GPUs in use * link * 0.87; all ranks load at once, and MLA crosses each link |
| DRAM | DRAM itself | bandwidth |
| SSD | drives | sum of reads * 0.9, what kvstrata.l2 reached of the raw drive (docs/bench-l2.md: 0.87 to 1.45) |
| SSD | network | NIC * 0.92 * nodes / (nodes - 1): with `fleet` placement that share of all pieces is remote |
| SSD | CPU | half of the cores / 2.54 CPU seconds for each GiB, client and store (docs/bench-l2.md, cold) |
| SSD | client | 4.5: the most that one kvstrata.l2 was ever seen to load, warm, on 16 cores (docs/bench-l2.md) |

After the SSD tier the bytes take the DRAM tier's way too, one after the other: LMCache fills its L1 before it copies.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from kvstrata.plan.deployment import Deployment
from kvstrata.plan.engine import REQUEST_OVERHEAD_S, Engine
from kvstrata.plan.figures import Basis, Figure, assumed
from kvstrata.plan.nodes import Node

GIB = 1 << 30
LINKS = "GPU links"
LINK_SHARE = 0.87
STORE_SHARE = 0.9
NIC_SHARE = 0.92
CPU_SHARE = 0.5
CPU_S_PER_GIB = 2.54
CLIENT_GBPS = Figure(4.5, Basis.MEASURED, "docs/bench-l2.md, one kvstrata.l2 on another host of 16 cores")
DRAM_LOOKUP_S = assumed(0.001, "one round trip to LMCache")
# Chunks and milliseconds of a lookup that hits, P50 on Kvrocks with 10^6 chunks: docs/bench-l2.md, `bench keys`.
_LOOKUP_MS = ((0, 0.0), (1, 0.45), (32, 3.97), (128, 4.37))
MARGIN = 1.0
"""A tier pays where it delivers at least this many times what breaks even."""


class TierName(StrEnum):
    """The tiers that a plan judges."""

    DRAM = "dram"
    SSD = "ssd"


@dataclass(frozen=True)
class Tier:
    """One tier of a node."""

    name: TierName
    limits: tuple[tuple[str, Figure], ...]
    """Each part of the way with 10^9 bytes/s of stored KV, for all replicas of the node."""
    before: Tier | None
    """The tier through which its bytes go afterwards."""
    capacity_gib: float
    """What it holds: DRAM for a node, SSD for the site."""
    replicas: int = 1
    """Of the node: each has its own GPU links."""

    @property
    def slowest(self) -> tuple[str, Figure]:
        """The part that limits it."""
        return min(self.limits, key=lambda limit: limit[1].value)

    @property
    def gbps(self) -> float:
        """10^9 bytes/s for the whole node while all of its replicas load, the tiers after it included."""
        return self.gbps_of(self.replicas)

    def gbps_of(self, loads: int) -> float:
        """Return 10^9 bytes/s for so many loads at once: fewer than there are replicas use only their own GPU links."""
        share = min(1.0, loads / self.replicas)
        own = min(limit.value * (share if name == LINKS else 1.0) for name, limit in self.limits)
        return own if self.before is None else 1 / (1 / own + 1 / self.before.gbps_of(loads))

    def lookup_s(self, chunks: int) -> float:
        """Return the seconds until it is known what the tiers hold of a prompt."""
        if self.name is TierName.DRAM:
            return DRAM_LOOKUP_S.value
        return DRAM_LOOKUP_S.value + store_lookup_s(chunks)

    def load_s(self, stored_bytes: float, sharing: int) -> float:
        """Return the seconds until `sharing` loads of so many bytes, begun at once on a node, have all arrived."""
        return sharing * stored_bytes / (self.gbps_of(sharing) * 1e9)


def store_lookup_s(chunks: int) -> float:
    """Return the seconds of a lookup in the stores: between the measured points straight, beyond them in proportion."""
    for (low, low_ms), (high, high_ms) in pairwise(_LOOKUP_MS):
        if chunks <= high:
            return (low_ms + (high_ms - low_ms) * (chunks - low) / (high - low)) / 1e3
    most, most_ms = _LOOKUP_MS[-1]
    return most_ms / 1e3 * chunks / most


def tiers_of(node: Node, deployment: Deployment, ssd_gbps: Figure | None = None) -> tuple[Tier, ...]:
    """Return the tiers that a deployment has on each node: DRAM if it has a size, SSD if there are drives.

    Args:
        ssd_gbps: a measured rate of the whole way from the drives, which replaces drives, CPU and client.
    """
    layout = deployment.layout
    replicas = deployment.replicas_on(node)
    gpus = replicas * deployment.tensor_parallel
    # What a link carries for each byte stored: MLA's latent goes over every rank's.
    per_stored = layout.rank_bytes_per_token * deployment.tensor_parallel / layout.stored_bytes_per_token
    link = node.gpu.link_gbps
    share = 1.0 if link.basis is Basis.MEASURED else LINK_SHARE
    dram = Tier(
        TierName.DRAM,
        (
            (LINKS, link.times(gpus * share / per_stored, f"{gpus} links at {share:g}")),
            ("DRAM", node.dram_gbps),
        ),
        None,
        deployment.dram_cache_on(node),
        replicas,
    )
    found = [dram] if dram.capacity_gib > 0 else []
    if node.drives:
        site_gib = deployment.nodes * sum(drive.usable_gib for drive in node.drives)
        found.append(Tier(TierName.SSD, _ssd_limits(node, deployment.nodes, ssd_gbps), dram, site_gib, replicas))
    return tuple(found)


def _ssd_limits(node: Node, nodes: int, measured: Figure | None) -> tuple[tuple[str, Figure], ...]:
    limits: list[tuple[str, Figure]] = []
    if measured is not None:
        limits.append(("as measured", measured))
    else:
        weakest = min((drive.read_gbps for drive in node.drives), key=lambda read: read.value)
        total = sum(drive.read_gbps.value for drive in node.drives) * STORE_SHARE
        bases = {drive.read_gbps.basis for drive in node.drives}
        basis = weakest.basis if len(bases) == 1 else Basis.DATA_SHEET
        limits.append(("drives", Figure(total, basis, f"{weakest.source}, {len(node.drives)} drives at {STORE_SHARE}")))
        limits.append(
            ("CPU", node.cpu_cores.times(CPU_SHARE / CPU_S_PER_GIB * GIB / 1e9, "half of the cores at 2.54 s/GiB"))
        )
        limits.append(("client", CLIENT_GBPS))
    if nodes > 1:
        remote = (nodes - 1) / nodes
        limits.append(
            ("network", node.nic_gbit.times(NIC_SHARE / 8 / remote, f"{remote:.0%} of the pieces are remote"))
        )
    return tuple(limits)


@dataclass(frozen=True)
class Verdict:
    """One tier at one prompt length: all replicas of a node load such a prompt at once."""

    tier: TierName
    tokens: int
    sharing: int
    """Loads at once on the node."""
    break_even_gbps: float
    """10^9 bytes/s that the node's tier must deliver."""
    gbps: float
    miss_s: float
    hit_s: float

    @property
    def margin(self) -> float:
        """Time to first token of a miss over that of a hit: above 1 the tier pays."""
        return self.miss_s / self.hit_s

    @property
    def pays(self) -> bool:
        """Whether a hit is at least as quick as computing."""
        return self.margin >= MARGIN


def judge(engine: Engine, tier: Tier, tokens: int, chunk_tokens: int, sharing: int, replicas: int) -> Verdict:
    """Return whether loading a prompt of `tokens` from a tier pays when `sharing` of a node's loads begin at once.

    Both sides queue alike: a replica that gets sharing / replicas such prompts computes them one after another, and the
    tier delivers `sharing` loads. Compared is when the last one has its first token. A hit computes what is behind its
    last whole chunk. Prompts below one chunk cannot hit: there hit and miss are the same.
    """
    queue = max(1.0, sharing / replicas)
    chunks = (tokens - 1) // chunk_tokens
    cached = chunks * chunk_tokens
    miss = REQUEST_OVERHEAD_S.value + queue * engine.compute_s(tokens)
    rest = REQUEST_OVERHEAD_S.value + queue * engine.compute_s(tokens, cached)
    stored = cached * engine.kv.stored_bytes_per_token
    hit = miss if not chunks else rest + tier.lookup_s(chunks) + tier.load_s(stored, sharing)
    saved = miss - rest - tier.lookup_s(chunks)
    needed = sharing * stored / saved / 1e9 if saved > 0 else float("inf")
    return Verdict(tier.name, tokens, sharing, needed, tier.gbps_of(sharing), miss, hit)
