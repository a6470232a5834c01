"""A run of the contract test: rounds over all arms, each in another order, and the verdicts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import Any

from kvstrata.bench.ending import end_if_told
from kvstrata.bench.errors import BenchError
from kvstrata.contract import judge, rendering
from kvstrata.contract.arms import Arm
from kvstrata.contract.client import Front
from kvstrata.contract.disruption import Disruption, disrupt
from kvstrata.contract.figures import Figures, figures, in_own_time
from kvstrata.contract.load import Load, hold
from kvstrata.contract.local import LocalTarget
from kvstrata.contract.overhead import Overhead
from kvstrata.contract.residency import lost
from kvstrata.contract.target import Target
from kvstrata.contract.throughput import Saturation
from kvstrata.contract.workload import Conversations, Shape, sample_texts, tokens_per_word

UNIQUE, SHARED = "conversations", "shared prefix"
# The contract's: how many more conversations there are than caches have room for.
OVERSUBSCRIBED = 4
HOT_SHARE = 0.5
# Tokens; of answers under way when something happens.
_LONG_OUTPUT = 30
type Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What to run."""

    arms: tuple[Arm, ...]
    rounds: int
    seconds: float
    """Of each load."""
    per_s: float
    """Requests a second, about."""
    disruption_s: float
    """Of the load that is disrupted; 0: it is not."""
    seed: int = 1
    routers: int = 2
    """That share the load which is disrupted."""
    disruption_rounds: int = 1
    slow_down: float = 1.0
    """How many times longer than said here all takes that takes time: engines, think times, the load itself. The same
    system by its own clock, for a machine of few cores. Of loads alone: a router's health checks have a real clock."""


@dataclass(frozen=True)
class LoadFigures:
    """The figures of one load."""

    arm: str
    round: int
    workload: str
    figures: Figures


@dataclass
class Run:
    """All that one run found."""

    loads: list[LoadFigures] = field(default_factory=list)
    disruptions: dict[str, list[Disruption]] = field(default_factory=dict)
    overheads: dict[str, list[Overhead]] = field(default_factory=dict)
    saturations: list[Saturation] = field(default_factory=list)
    failures: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    shapes: dict[str, Any] = field(default_factory=dict)

    def of(self, arm: str, workload: str) -> list[Figures]:
        """Return the figures of an arm's rounds."""
        return [found.figures for found in self.loads if (found.arm, found.workload) == (arm, workload)]

    def verdicts(self, arms: Iterable[Arm]) -> list[judge.Verdict]:
        """Return all verdicts: of arms that nothing is claimed for, as well."""
        found = []
        for arm in arms:
            if rounds := self.of(arm.name, UNIQUE):
                found.append(judge.locality(arm.name, rounds))
                found.append(judge.spread(arm.name, rounds))
                found.append(judge.hits(arm.name, rounds))
            if arm.name in self.disruptions:
                found.append(judge.disruption(arm.name, self.disruptions[arm.name]))
                found.append(judge.streams(arm.name, self.disruptions[arm.name]))
            if arm.name in self.overheads:
                found.append(judge.overhead(arm.name, self.overheads[arm.name]))
            if rounds := self.of(arm.name, SHARED):
                found.append(judge.spread(arm.name, rounds, judge.HOT))
        return found


def shape_for(target: Target, per_s: float, hot_share: float) -> tuple[Shape, int]:
    """Return the conversations' shape, and how many are held at a time.

    So many that their KV is four times what all workers hold together; then the long think times are chosen so that
    together they ask as often as wanted.

    Raises:
        BenchError: so few requests a second, or so many conversations, that no think times fit.
    """
    shape = Shape(hot_share=hot_share)
    # The shared prefix is in every worker once.
    room = len(target.workers) * target.kv_tokens
    own = replace(shape, hot_share=0.0).tokens
    slots = max(8, round(OVERSUBSCRIBED * room / own))
    think_s = slots / per_s
    long_s = (think_s - (1 - shape.long_share) * shape.short_think_s) / shape.long_share
    if long_s < shape.short_think_s:
        raise BenchError(
            f"{slots} conversations cannot ask {per_s:g} times a second in all; allowed: fewer (--per-second)"
        )
    return replace(shape, long_think_s=long_s), slots


def loads(target: Target, plan: Plan, run: Run, say: Say) -> None:
    """Points 1, 2, 3 and 6: every arm under both workloads in every round."""
    scale = tokens_per_word([len(ids) for ids in target.tokens(sample_texts())])
    for turn in range(1, plan.rounds + 1):
        order = random.Random(plan.seed + turn).sample(plan.arms, len(plan.arms))  # noqa: S311
        for arm in order:
            end_if_told()
            try:
                with target.route(arm) as front:
                    for workload, hot_share in ((UNIQUE, 0.0), (SHARED, HOT_SHARE)):
                        shape, slots = shape_for(target, plan.per_s, hot_share)
                        run.shapes[workload] = {"slots": slots, **asdict(shape)}
                        # Its first words differ: the first KV block of a prompt must be no other load's.
                        seed, salt = plan.seed + turn, f"{len(run.loads)} {arm.name} {turn} {workload}"
                        talk = Conversations(shape.slowed(plan.slow_down), seed, salt, scale)
                        load = Load(shape, slots, plan.seconds).slowed(plan.slow_down)
                        found = in_own_time(held_figures(target, front, load, talk, seed), plan.slow_down)
                        run.loads.append(LoadFigures(arm.name, turn, workload, found))
                        say(f"round {turn}: {arm.name}: {workload}: {summary(found)}")
            except BenchError as error:
                run.failures.append({"arm": arm.name, "what": "loads", "error": str(error)})
                say(f"round {turn}: {arm.name}: FAILED: {error}")
    told = target.events()
    if told is None:
        run.notes.append("NOT JUDGED: locality, for nobody listens to KV events here")
    elif missing := lost(told):
        run.notes.append(f"{missing} batches of KV events are missing: locality is not to be trusted")
    if note := used_note([found.figures for found in run.loads]):
        run.notes.append(note)


def held_figures(target: Target, front: Front, load: Load, talk: Conversations, seed: int) -> Figures:
    """Hold a load; return its figures, with what it took of this machine where the engines are here."""
    meter = target.meter()
    before = None if front.metrics is None else rendering.counted(front.metrics)
    held = asyncio.run(hold(front, load, talk, seed))
    used = None if meter is None else meter.used()
    untold = None if front.metrics is None or before is None else rendering.counted(front.metrics).since(before)
    told = target.events()
    # No prompt of another load begins as any of this one does: what was in caches before does not matter.
    batches = None if told is None else [batch for batch in told if batch.at >= held.began]
    names = [worker.name for worker in target.workers]
    found = replace(figures(held, names, batches, target.tokens, target.block_size), untold=untold)
    return found if used is None else replace(found, cores=used.cores, waiting=used.waiting(held.answering_s))


def disruptions(target: LocalTarget, plan: Plan, run: Run, say: Say) -> None:
    """Point 4, for the arms that the contract is claimed for; several rounds, the arms in turns."""
    scale = tokens_per_word([len(ids) for ids in target.tokens(sample_texts())])
    claimed = [arm for arm in plan.arms if arm.judged]
    for turn, arm in ((turn, arm) for turn in range(1, plan.disruption_rounds + 1) for arm in claimed):
        end_if_told()
        shape, slots = shape_for(target, plan.per_s, 0.0)
        # Some streams must be under way where a worker is killed.
        shape = replace(shape, output=_LONG_OUTPUT)
        seed = plan.seed + turn
        talk = Conversations(shape, seed, f"{arm.name} {turn} disrupted", scale)
        try:
            load = Load(shape, slots, plan.disruption_s)
            found = asyncio.run(disrupt(target, arm, load, talk, seed, plan.routers))
        except BenchError as error:
            run.failures.append({"arm": arm.name, "what": judge.DISRUPTION, "error": str(error)})
            say(f"round {turn}: {arm.name}: FAILED: {error}")
            continue
        run.disruptions.setdefault(arm.name, []).extend(found)
        for one in found:
            say(
                f"round {turn}: {arm.name}: {one.what}: {one.requests} requests, {one.failed} failed ({one.cut} cut), "
                f"{one.retried} retried, {one.saved_streams} streams went on elsewhere, locality back: {one.back_s}"
            )


def used_note(found: Sequence[Figures]) -> str | None:
    """Return what loads took of this machine, and whether it was too small for them; None where nobody measured it."""
    cores = [one.cores for one in found if one.cores is not None]
    waiting = [one.waiting for one in found if one.waiting is not None]
    if not cores:
        return None
    said = f"engines, router and client used {median(cores):.2f} CPUs in the median load"
    if not waiting:
        return f"{said}; NOT KNOWN whether they waited for one"
    said += f", and waited for one for {median(waiting):.1%} of the time that answers took"
    said += f", {max(waiting):.1%} in the worst"
    late = sum(one > judge.MOST_WAITING for one in waiting)
    if late:
        said += f". NOT TRUSTED, above {judge.MOST_WAITING:.0%}: {late} of {len(waiting)} loads"
    untold = sum((one.untold or 0.0) > judge.MOST_UNTOLD for one in found)
    if untold:
        said += f". NOT TRUSTED, the router often had no tokens of prompts: {untold} of {len(found)} loads"
    return said


def summary(found: Figures) -> str:
    """Return the figures in a line."""
    local = found.locality
    share = "-" if local is None or local.share is None else f"{local.landed}/{local.resident} landed"
    return (
        f"{found.requests} requests ({found.per_s:.0f}/s), {share}, max/mean {found.spread.requests_ratio:.2f} and "
        f"{found.spread.computed_ratio:.2f}, {found.hit_rate:.1%} cached, {found.failed} failed, "
        f"{found.retried} retried"
        + ("" if found.under_way is None else f", {found.under_way:.1f} under way in each")
        + ("" if found.cores is None else f", {found.cores:.2f} CPUs used")
        + ("" if found.waiting is None else f", {found.waiting:.1%} of the time waited for one")
        + ("" if not found.untold else f", tokens not told in time {found.untold:.1%}")
    )
