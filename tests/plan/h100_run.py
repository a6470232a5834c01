"""What was measured on one H100, and the same predicted.

Measured once: Llama-3.1-8B's shape with dummy weights, vLLM 0.26.0, LMCache 0.5.2, KV in HBM capped at 12 GiB, 50
active conversations of the proof of concept's workload, H2D 55 GB/s. Values are output tokens/s, TTFT P50 and P95 in
seconds, and the share of prompt tokens that came from any cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from kvstrata.plan.held import held
from kvstrata.plan.simulate import Outcome, Setup
from kvstrata.plan.tiers import Tier
from kvstrata.plan.workload import Workload
from tests.plan.samples import GB, dram, engine, ssd

LINK_GBPS = 55.0
CAP_GIB = 12.0


@dataclass(frozen=True)
class Row:
    """One configuration."""

    name: str
    tokens_per_s: float
    p50_s: float
    p95_s: float
    cached: float
    dram_gb: float = 0.0
    ssd_gbps: float = 0.0
    second_pass: bool = False

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """Its tiers; the SSD tier at the rate that its loads had in the run."""
        if not self.dram_gb:
            return ()
        behind = dram(self.dram_gb * GB, LINK_GBPS)
        return (behind, ssd(self.ssd_gbps, behind)) if self.ssd_gbps else (behind,)

    @cache  # noqa: B019 - rows are made once
    def predicted(self) -> Outcome:
        """Return the simulated run: 400 conversations, or the second time that they are held."""
        # LMCache's own defaults for what comes from the stores and its own connector, not those of the roles.
        setup = Setup(engine(kv_cache_gib=CAP_GIB), self.tiers, 1, 1, 256, retain=False, lookups=8, recheck_s=0.0)
        return held(setup, Workload(), 2 if self.second_pass else 1)


ALONE = Row("vLLM alone", 2186, 0.734, 1.284, 0.24)
ROWS = (
    ALONE,
    Row("60 GB of DRAM", 2758, 0.547, 1.179, 0.71, dram_gb=60),
    Row("60 GB of DRAM, second pass", 3135, 0.404, 0.837, 0.86, dram_gb=60, second_pass=True),
    Row("6 GB of DRAM, SSD at 0.28 GB/s", 642, 7.047, 15.833, 0.74, dram_gb=6, ssd_gbps=0.28),
    Row("6 GB of DRAM, SSD at 0.28 GB/s, second pass", 561, 10.723, 12.533, 0.95, 6, 0.28, True),
    Row("6 GB of DRAM, SSD at 1.4 GB/s", 1582, 0.728, 2.611, 0.71, dram_gb=6, ssd_gbps=1.4),
    Row("6 GB of DRAM, SSD at 1.4 GB/s, second pass", 1695, 0.622, 2.414, 0.79, 6, 1.4, True),
)
