"""What is deployed on a node: how the replicas share it, and what each tier is set to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kvstrata.plan.nodes import Node
from kvstrata.plan.reading import BadInputError
from kvstrata.plan.shape import KvLayout, Shape
from kvstrata.preflight.memory import shares


@dataclass(frozen=True)
class Deployment:
    """A site of equal nodes. None stands for what the plan itself suggests."""

    shape: Shape
    nodes: int = 1
    tensor_parallel: int = 1
    replicas: int | None = None
    """On each node; None is as many as its GPUs allow."""
    kv_dtype: str = "auto"
    chunk_tokens: int = 256
    dram_cache_gib: float | None = None
    """LMCache's L1 on each node; 0 plans without that tier."""
    kv_cache_gib: float | None = None
    """HBM for KV on each GPU; None is what the weights leave."""
    min_load_gbps: float = 0.0
    accelerator: str = "cuda"
    """kvstrata_accelerator of the site."""
    write_policy: Mapping[str, Any] = field(default_factory=lambda: {"name": "all"})

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing; BadInputError names them."""
        for name, low, high in (("nodes", 1, 1000), ("tensor_parallel", 1, 64), ("chunk_tokens", 16, 4096)):
            if not low <= getattr(self, name) <= high:
                raise BadInputError(name, getattr(self, name), f"{low} to {high}")
        for name in ("dram_cache_gib", "kv_cache_gib", "min_load_gbps"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise BadInputError(name, value, "0 or more")

    @property
    def layout(self) -> KvLayout:
        """The KV of one replica."""
        return KvLayout(self.shape, self.tensor_parallel, self.kv_dtype)

    def replicas_on(self, node: Node) -> int:
        """Return the replicas of a node; BadInputError where its GPUs do not suffice."""
        most = node.gpus // self.tensor_parallel
        if most < 1:
            raise BadInputError("tensor_parallel", self.tensor_parallel, f"at most the node's {node.gpus} GPUs")
        wanted = most if self.replicas is None else self.replicas
        if not 1 <= wanted <= most:
            raise BadInputError("replicas", wanted, f"1 to {most}: {node.gpus} GPUs / {self.tensor_parallel}")
        return wanted

    def dram_cache_on(self, node: Node) -> float:
        """Return LMCache's L1 on a node in GiB: as set, or what preflight's memory budget leaves, less a tenth."""
        if self.dram_cache_gib is not None:
            if self.dram_cache_gib > node.dram_gib.value:
                raise BadInputError("dram_cache_gib", self.dram_cache_gib, f"at most {node.dram_gib.value:g}, the DRAM")
            return self.dram_cache_gib
        return suggested_dram_cache(node, self.replicas_on(node), self.tensor_parallel)


def suggested_dram_cache(node: Node, replicas: int, tensor_parallel: int) -> float:
    """Return the L1 that fits beside stores, engines and system by preflight's budget, with a tenth of DRAM left free.

    That tenth is for the page cache, through which weights and stores are read. At least 0.
    """
    taken = shares(
        {
            "engine": "kvrocks",
            "stores": len(node.drives),
            "profile": "ssd_cache",
            "workers": 8,
            "config": {},
            "dram_cache_gib": 0,
            "replicas": replicas,
            "engine_memory_gib": None,
            "accelerator": "cuda",
            "tensor_parallel": tensor_parallel,
            "cpu_kv_gib": 0,
        }
    )
    return max(0.0, float(int(0.9 * node.dram_gib.value - sum(share.gib for share in taken))))
