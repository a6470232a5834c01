"""The plan: everything put together, as data. What prints it and what writes it as JSON only read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from kvstrata.plan.curve import THINK_S, USERS, Point, curve
from kvstrata.plan.deployment import Deployment
from kvstrata.plan.engine import Engine
from kvstrata.plan.figures import Figure
from kvstrata.plan.measured import Measured, measured_engine, measured_node, measured_ssd
from kvstrata.plan.nodes import Node
from kvstrata.plan.reading import BadInputError
from kvstrata.plan.simulate import Setup
from kvstrata.plan.tiers import Tier, Verdict, judge, tiers_of
from kvstrata.plan.wear import Wear, wear_of, writable_gbps
from kvstrata.plan.workload import Workload

GIB = 1 << 30
LENGTHS = (1024, 4096, 16384, 65536)


@dataclass(frozen=True)
class Question:
    """What is asked of a plan, beside node and deployment."""

    lengths: tuple[int, ...] = LENGTHS
    """Prompts in tokens; the workload's mean is judged anyway."""
    loads: int | None = None
    """Loads that begin at once on a node; None is one for each replica."""
    workload: Workload = field(default_factory=Workload)
    users: tuple[int, ...] = ()
    """Of the site; none is USERS for each replica."""
    thinks: tuple[float, ...] = THINK_S
    seed: int = 1
    simulated: bool = True


@dataclass(frozen=True)
class TierPlan:
    """One tier and what is thought of it."""

    tier: Tier
    tokens: int
    """What it holds, of the KV of one replica's layout."""
    verdict: Verdict
    """At the workload's mean prompt, the one that decides."""
    others: tuple[Verdict, ...]
    alone: Verdict
    """The same prompt with a single load on the node."""
    most_loads: int
    """Loads at once up to which it pays; 0 where not even one does."""


@dataclass(frozen=True)
class Plan:
    """The answer."""

    node: Node
    deployment: Deployment
    engine: Engine
    question: Question
    replicas: int
    dram_cache_gib: float
    hbm_tokens: int
    """Of one replica."""
    tiers: tuple[TierPlan, ...]
    min_load_gbps: float
    """Break-even of one replica at the workload's mean prompt: what lmcache_min_load_gbps should be."""
    points: tuple[Point, ...]
    wear: tuple[Wear, ...]
    wear_point: Point | None
    """The point of the curve with the most writes, which the wear is of."""
    offered_gbps: float
    """10^9 bytes/s of new KV on each node there."""
    ssd_measured: Figure | None

    @property
    def hurting(self) -> list[TierPlan]:
        """The tiers that would make serving slower than computing."""
        return [tier for tier in self.tiers if not tier.verdict.pays]

    @property
    def exit_code(self) -> int:
        """0 when every tier pays, 1 when one would hurt."""
        return 1 if self.hurting else 0


def assess(node: Node, deployment: Deployment, measured: Measured, question: Question) -> Plan:
    """Return the plan of a site of equal nodes.

    Raises:
        BadInputError: for what cannot be deployed: weights that do not fit, more replicas than GPUs, no tier at all.
    """
    node = measured_node(node, measured)
    layout = deployment.layout
    replicas = deployment.replicas_on(node)
    engine = measured_engine(Engine(node.gpu, layout, kv_cache_gib=deployment.kv_cache_gib), measured)
    if engine.hbm_kv_bytes <= 0:
        weights = deployment.shape.weight_bytes / deployment.tensor_parallel / GIB
        left = engine.hbm_kv_bytes / GIB + weights
        allowed = f"more: {weights:.0f} GiB of weights do not fit into the {left:.0f} GiB that a GPU has for them"
        raise BadInputError("tensor_parallel", deployment.tensor_parallel, allowed)
    ssd = measured_ssd(engine, measured, deployment.chunk_tokens)
    tiers = tiers_of(node, deployment, ssd)
    if not tiers:
        raise BadInputError("dram_cache_gib", deployment.dram_cache_gib, "more than 0 on a node without drives")
    loads = question.loads or replicas
    mean = question.workload.mean_prompt
    planned = tuple(_tier_plan(engine, tier, deployment, question, loads, replicas) for tier in tiers)
    break_even = float(f"{engine.break_even_gbps(mean):.3g}")
    fleet = replicas * deployment.nodes
    points: Sequence[Point] = ()
    if question.simulated:
        setup = Setup(engine, tiers, replicas, fleet, deployment.chunk_tokens, deployment.min_load_gbps)
        users = question.users or tuple(count * fleet for count in USERS)
        cut = break_even if any(not tier.verdict.pays for tier in planned) else 0.0
        points = curve(setup, question.workload, users, question.thinks, question.seed, cut)
    heaviest = max(points, key=_written_per_s, default=None) if node.drives else None
    offered = _written_per_s(heaviest) * replicas if heaviest else 0.0
    return Plan(
        node=node,
        deployment=deployment,
        engine=engine,
        question=replace(question, loads=loads),
        replicas=replicas,
        dram_cache_gib=deployment.dram_cache_on(node),
        hbm_tokens=engine.hbm_tokens,
        tiers=planned,
        min_load_gbps=break_even,
        points=tuple(points),
        wear=tuple(wear_of(node.drives, min(offered, writable_gbps(node) * 1e9))) if heaviest else (),
        wear_point=heaviest,
        offered_gbps=offered / 1e9,
        ssd_measured=ssd,
    )


def _written_per_s(point: Point) -> float:
    """Return the bytes that one replica stores a second, with every tier there is."""
    outcome = point.outcomes.get("+ssd")
    return outcome.written_bytes / outcome.seconds if outcome and outcome.seconds else 0.0


def _tier_plan(
    engine: Engine, tier: Tier, deployment: Deployment, question: Question, loads: int, replicas: int
) -> TierPlan:
    def verdict(tokens: int, sharing: int) -> Verdict:
        return judge(engine, tier, tokens, deployment.chunk_tokens, sharing, replicas)

    mean = question.workload.mean_prompt
    most = 0
    while most < loads and verdict(mean, most + 1).pays:
        most += 1
    return TierPlan(
        tier=tier,
        tokens=int(tier.capacity_gib * GIB / engine.kv.stored_bytes_per_token),
        verdict=verdict(mean, loads),
        others=tuple(verdict(tokens, loads) for tokens in question.lengths),
        alone=verdict(mean, 1),
        most_loads=most,
    )
