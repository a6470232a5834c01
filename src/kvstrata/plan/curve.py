"""The working-set curve: hit rate and speed-up against users and think time, by simulation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kvstrata.plan.reading import BadInputError
from kvstrata.plan.simulate import Outcome, Setup, Simulation
from kvstrata.plan.tiers import Tier, TierName
from kvstrata.plan.workload import Workload

USERS = (10, 50, 200, 800)
"""For each replica, where none are given."""
THINK_S = (0.0, 60.0)


@dataclass(frozen=True)
class Point:
    """One number of users and one think time, with each set of tiers: `hbm`, `+dram`, `+ssd`, `+ssd, cut`."""

    users: int
    """Of the site."""
    think_s: float
    outcomes: dict[str, Outcome]

    def speedup(self, name: str) -> float:
        """Return the throughput of a set of tiers over that of HBM alone."""
        return self.outcomes[name].output_per_s / self.outcomes["hbm"].output_per_s

    def ttft_ratio(self, name: str) -> float:
        """Return HBM's median TTFT over that of a set of tiers: above 1 is quicker."""
        return self.outcomes["hbm"].quantile(0.5) / self.outcomes[name].quantile(0.5)


def sets(tiers: Sequence[Tier], cut_gbps: float) -> dict[str, tuple[tuple[Tier, ...], float]]:
    """Return each set of tiers with its min_load_gbps: none, DRAM, all; and all with lookups cut if `cut_gbps`."""
    dram = tuple(tier for tier in tiers if tier.name is TierName.DRAM)
    found: dict[str, tuple[tuple[Tier, ...], float]] = {"hbm": ((), 0.0)}
    if dram:
        found["+dram"] = (dram, 0.0)
    if len(tiers) > len(dram):
        found["+ssd"] = (tuple(tiers), 0.0)
        if cut_gbps:
            found["+ssd, cut"] = (tuple(tiers), cut_gbps)
    return found


def curve(
    setup: Setup, workload: Workload, users: Sequence[int], thinks: Sequence[float], seed: int, cut_gbps: float
) -> list[Point]:
    """Return the points, think times outside, users inside.

    Each replica serves users / fleet of them, rounded up: the router keeps a conversation where it is. A generation of
    conversations warms the caches, the next is counted: at least 100 of them.

    Raises:
        BadInputError: when HBM does not hold one conversation.
    """
    longest = workload.longest
    if setup.engine.hbm_tokens < longest:
        allowed = (
            f"at least {longest}, the longest conversation: more GPUs a replica, fewer bits, or a larger HBM share"
        )
        raise BadInputError("tokens of KV in HBM", setup.engine.hbm_tokens, allowed)
    points = []
    for think_s in thinks:
        for site_users in users:
            each = -(-site_users // setup.fleet)
            warm, counted = each, max(each, 100)
            outcomes = {
                name: Simulation(replace(setup, tiers=tiers, min_load_gbps=cut), workload, each, think_s, seed).run(
                    warm + counted, warm
                )
                for name, (tiers, cut) in sets(setup.tiers, cut_gbps).items()
            }
            points.append(Point(site_users, think_s, outcomes))
    return points
