"""Points 1, 2, 3 and 6 on a site: the deployed way to route, and others beside it, under the same conversations."""

from __future__ import annotations

import asyncio
import math
import random
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

from kvstrata.bench.ending import end_if_told
from kvstrata.bench.errors import BenchError
from kvstrata.contract.arms import Arm
from kvstrata.contract.attribution import attributed, disagreements
from kvstrata.contract.client import Answer, Client, Front, Request
from kvstrata.contract.figures import Spread, figures
from kvstrata.contract.load import Held, Load, hold
from kvstrata.contract.residency import lost
from kvstrata.contract.run import HOT_SHARE, OVERSUBSCRIBED, SHARED, UNIQUE, LoadFigures, Plan, Run, Say, summary
from kvstrata.contract.site import SiteTarget
from kvstrata.contract.site_counters import Counted, since
from kvstrata.contract.workload import Conversations, Shape, sample_texts, tokens_per_word
from kvstrata.verify import wait
from kvstrata.verify.check import UnableError, UnmetError

TIMEOUT_S = 180.0
_SETTLE_S = 10.0
_PROBES = 3
# Of what one cold prompt after the other would take: most turns of the load find their prefix, so that engines are busy
# about a third of the time, and one of two can bear it alone.
_SHARE = 0.8
_MOST_PER_S = 8.0
# A prompt's part of a turn is at least this share of what the shape says (Conversations).
_SHORTEST = 0.7
# In tokens. Smaller than those for mocked engines, which compute nothing: an engine on a CPU takes seconds for 600.
_FIRST, _MORE, _OUTPUT, _HOT = 300, 60, 4, 400
# That one client holds. Caches of a large site then evict nothing, and the report says so.
_MOST_SLOTS = 4000


@dataclass(frozen=True)
class Sources:
    """Of one load: what engines counted, and how far its figures can be trusted."""

    arm: str
    round: int
    workload: str
    engines: Mapping[str, Counted]
    foreign: int
    """Requests that engines counted and this load did not send, or sent in vain."""
    told: int
    """Answers whose router told the engine, and whose engine was told by KV events as well."""
    contradicted: int
    """Of them, those where both told of different engines."""
    removed: int | None
    """Blocks that left engines' own caches meanwhile; None where nobody tells."""
    found_again: float | None
    """Of the tokens in whole blocks of the turns before, those found in the own cache of the engine that got the next
    turn: at least this share of turns landed, also where nobody tells who answered."""


def shape_for(target: SiteTarget, per_s: float, hot_share: float) -> tuple[Shape, int]:
    """Return the conversations' shape, and how many are held at a time: see kvstrata.contract.run.shape_for.

    Each turn adds at least one whole block, by which its engine is known.

    Raises:
        BenchError: so few requests a second, or so many conversations, that no think times fit.
    """
    base = Shape(first=_FIRST, more=_MORE, output=_OUTPUT, hot_tokens=_HOT, hot_share=hot_share)
    shape = replace(base, more=max(base.more, math.ceil((target.block_size - base.output) / _SHORTEST)))
    room = len(target.workers) * target.kv_tokens
    slots = min(_MOST_SLOTS, max(8, round(OVERSUBSCRIBED * room / replace(shape, hot_share=0.0).tokens)))
    long_s = (slots / per_s - (1 - shape.long_share) * shape.short_think_s) / shape.long_share
    if long_s < shape.short_think_s:
        raise BenchError(f"{slots} conversations cannot ask {per_s:g} times a second in all; allowed: fewer")
    return replace(shape, long_think_s=long_s), slots


def pace(target: SiteTarget, seed: int) -> tuple[float, float]:
    """Return how many requests a second the site bears without haste, and the seconds that a cold prompt takes.

    Raises:
        BenchError: it does not answer.
    """
    shape = shape_for(target, 1.0, 0.0)[0]
    talk = Conversations(shape, seed, salt("pace"), scale_of(target))

    async def ask() -> list[Answer]:
        client = Client(target.front(), TIMEOUT_S)
        try:
            prompts = [talk[number].prompt(0) for number in range(_PROBES + 1)]
            return [await client.send(Request("pace", 0, text, shape.output, stream=False)) for text in prompts]
        finally:
            client.close()

    with target.route(target.deployed):
        answers = asyncio.run(ask())
    if wrong := next((answer.error for answer in answers if answer.error), None):
        raise BenchError(f"the site does not answer through its {target.through}: {wrong}")
    # The first one may meet an engine that has to warm up.
    cold_s = median(answer.ended - answer.sent for answer in answers[1:])
    machines = 1 if target.one_machine else len({replica.node.name for replica in target.replicas.values()})
    return min(_MOST_PER_S, _SHARE * machines / cold_s), cold_s


def salt(name: str) -> str:
    """Return what prompts of a load begin with: its first block is in no cache, whatever was asked before."""
    return f"{secrets.token_hex(8)} {name}"


def scale_of(target: SiteTarget) -> float:
    """Return the tokens of each word of the workload's."""
    return tokens_per_word([len(ids) for ids in target.tokens(sample_texts())])


def loads(target: SiteTarget, plan: Plan, run: Run, sources: list[Sources], say: Say) -> None:
    """Hold every arm's loads: both workloads for the deployed one, that without a shared prefix for the others."""
    scale = scale_of(target)
    for turn in range(1, plan.rounds + 1):
        for arm in random.Random(plan.seed + turn).sample(plan.arms, len(plan.arms)):  # noqa: S311 - no secret
            end_if_told()
            workloads = ((UNIQUE, 0.0), (SHARED, HOT_SHARE)) if arm.judged else ((UNIQUE, 0.0),)
            try:
                with target.route(arm) as front:
                    for workload, hot_share in workloads:
                        shape, slots = shape_for(target, plan.per_s, hot_share)
                        run.shapes[workload] = {"slots": slots, **asdict(shape)}
                        talk = Conversations(shape, plan.seed + turn, salt(f"{arm.name} {workload}"), scale)
                        load = Load(shape, slots, plan.seconds, timeout_s=TIMEOUT_S)
                        found, told = _one(target, front, arm, turn, workload, load, talk, plan.seed + turn)
                        run.loads.append(found)
                        sources.append(told)
                        say(f"round {turn}: {arm.name}: {workload}: {summary(found.figures)}")
            except (BenchError, UnmetError, UnableError) as error:
                run.failures.append({"arm": arm.name, "what": "loads", "error": str(error)})
                say(f"round {turn}: {arm.name}: FAILED: {error}")
    run.notes += notes(target, sources)


def _one(
    target: SiteTarget,
    front: Front,
    arm: Arm,
    turn: int,
    workload: str,
    load: Load,
    talk: Conversations,
    seed: int,
) -> tuple[LoadFigures, Sources]:
    names = list(target.replicas)
    before = target.counted()
    held = asyncio.run(hold(front, load, talk, seed))
    good = sum(answer.ok for answer in held.answers)
    engines = _settled(target, before, good)
    told = target.events()
    batches = None if told is None else [batch for batch in told if batch.at >= held.began]
    answers = held.answers
    if batches is not None:
        answers = attributed(answers, batches, target.tokens, target.block_size)
    both, contradicted = disagreements(held.answers, answers)
    found = figures(replace(held, answers=answers), names, batches, target.tokens, target.block_size)
    # Engines' own counters say what was computed; a router tells tokens from all tiers alike, if any.
    spread = Spread({name: one.requests for name, one in engines.items()}, _computed(engines))
    found = replace(
        found,
        prompt_tokens=sum(one.prompt_tokens for one in engines.values()),
        cached_tokens=sum(one.own_cache for one in engines.values()),
        spread=spread,
    )
    about = Sources(
        arm.name,
        turn,
        workload,
        engines,
        sum(one.requests for one in engines.values()) - good,
        both,
        contradicted,
        None if batches is None else _removed(batches),
        found_again(target, held, engines) if workload == UNIQUE else None,
    )
    return LoadFigures(arm.name, turn, workload, found), about


def _computed(engines: Mapping[str, Counted]) -> dict[str, int]:
    return {name: one.computed for name, one in engines.items()}


def _removed(batches: Sequence[Any]) -> int:
    return sum(
        len(event["block_hashes"]) for batch in batches for event in batch.events if event["type"] == "BlockRemoved"
    )


def _settled(target: SiteTarget, before: Mapping[str, Counted], good: int) -> dict[str, Counted]:
    """Engines' counters, which come a moment after the answers."""

    def counted() -> dict[str, Counted] | None:
        found = since(before, target.counted())
        return found if sum(one.requests for one in found.values()) >= good else None

    return wait.until(counted, _SETTLE_S) or since(before, target.counted())


def found_again(target: SiteTarget, held: Held, engines: Mapping[str, Counted]) -> float | None:
    """Return the share of what turns had before them that their engines had in their own caches; None without any."""
    known = {(answer.request.conversation, answer.request.turn): answer for answer in held.answers if answer.ok}
    befores = [
        known[before].request.prompt for conversation, turn in known if (before := (conversation, turn - 1)) in known
    ]
    size = target.block_size
    whole = sum(len(ids) // size * size for ids in target.tokens(befores))
    return min(1.0, sum(one.own_cache for one in engines.values()) / whole) if whole else None


def notes(target: SiteTarget, sources: Sequence[Sources]) -> list[str]:
    """Return what must be said of the figures."""
    found = []
    if target.recorded is None:
        shares = [
            f"{one.arm} {one.found_again:.1%}"
            for one in sources
            if one.workload == UNIQUE and one.found_again is not None
        ]
        found.append(
            "NOT JUDGED: locality, for these engines tell no KV events (kv_aware, Dynamo). From their counters, "
            f"tokens of the turns before that the engine of the next turn had in its own cache: {', '.join(shares)}; "
            "the rest was evicted, or is elsewhere"
        )
    else:
        batches = target.events() or []
        if missing := lost(batches):
            found.append(f"{missing} batches of KV events are missing: locality is not to be trusted")
        if sources and not all(one.removed for one in sources):
            found.append("NOT TESTED: eviction, for in some loads no block left an engine's own cache")
    if foreign := sum(one.foreign for one in sources):
        found.append(f"{foreign} requests that engines counted were not answered to this load: retried, or other users")
    if told := sum(one.told for one in sources):
        wrong = sum(one.contradicted for one in sources)
        found.append(f"of {told} answers whose router told the engine, KV events told of another one in {wrong}")
    return found
