"""What several tests of the plan use."""

from __future__ import annotations

from kvstrata.plan.deployment import Deployment
from kvstrata.plan.engine import Engine
from kvstrata.plan.figures import Basis, Figure
from kvstrata.plan.gpus import gpu
from kvstrata.plan.nodes import GIB, Node, named_node
from kvstrata.plan.presets import model
from kvstrata.plan.shape import KvLayout
from kvstrata.plan.tiers import Tier, TierName


def seen(value: float) -> Figure:
    """Return a measured figure."""
    return Figure(value, Basis.MEASURED, "test")


def engine(
    name: str = "Llama-3.1-8B", ranks: int = 1, kind: str = "H100-SXM", kv_cache_gib: float | None = None
) -> Engine:
    """Return a replica of a known model."""
    return Engine(gpu(kind), KvLayout(model(name), ranks), kv_cache_gib=kv_cache_gib)


def node(name: str = "8xH100-SXM") -> Node:
    """Return a known node."""
    return named_node(name)


def deployment(name: str = "Llama-3.1-8B", **changes: object) -> Deployment:
    """Return a deployment of a known model."""
    return Deployment(model(name), **changes)  # type: ignore[arg-type]  # a test's own names


def dram(gib: float, gbps: float = 55.0) -> Tier:
    """Return a DRAM tier of its own."""
    return Tier(TierName.DRAM, (("link", seen(gbps)),), None, gib)


def ssd(gbps: float, before: Tier, gib: float = 1000.0) -> Tier:
    """Return an SSD tier before a DRAM tier."""
    return Tier(TierName.SSD, (("as measured", seen(gbps)),), before, gib)


GB = 1e9 / GIB
"""10^9 bytes in GiB."""
