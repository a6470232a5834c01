"""(4) of the contract: a worker is killed and comes back, the router restarts, a worker joins, all under load."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from kvstrata.contract.arms import DYNAMO, ROUTER, Arm
from kvstrata.contract.client import Answer
from kvstrata.contract.figures import locality
from kvstrata.contract.load import Holder, Load
from kvstrata.contract.local import LocalTarget
from kvstrata.contract.residency import Batch
from kvstrata.contract.target import Worker
from kvstrata.contract.workload import Conversations

KILLED, RESTARTED, JOINED = "worker killed and back", "router restarted", "worker joined"
WINDOW_S = 5.0
_BACK = 0.9
# As many resident turns a window needs to be judged; with fewer it is joined with the next.
_ENOUGH = 10
_DOWN_S = 5.0
# It has a process of its own.
_KILLED = "w0"
# The load is ended after the last event, and not by the clock.
_EVER_S = 1e6
# In which a worker is gone for certain, once it is sent SIGKILL.
_KILL_S = 1.0
# playbooks/vars/roles.yml: dynamo_replica_sync.
REPLICAS = ("--router-replica-sync",)


@dataclass(frozen=True)
class Disruption:
    """What one event did to a load."""

    what: str
    requests: int
    failed: int
    cut: int
    """Of the failed, streams that ended in their middle: no client can send those again unnoticed."""
    retried: int
    back_s: float | None
    """From the end of the event until turns land where their prefixes are again (`back`); None: not within the load."""
    shares: tuple[tuple[float, float], ...]
    """Seconds since the event ended, and the share of resident turns that landed, for each window."""
    errors: tuple[str, ...] = ()
    lost_streams: int = 0
    """Of the cut, streams that were under way when a worker was killed: a router that hands streams through cannot go
    on with them elsewhere."""
    saved_streams: int = 0
    """Streams that were under way on the killed worker as well, and ended as if nothing had been."""

    @property
    def avoidable(self) -> int:
        """Failed requests that any router could have saved."""
        return self.failed - self.lost_streams


async def disrupt(
    target: LocalTarget,
    arm: Arm,
    load: Load,
    conversations: Conversations,
    seed: int,
    routers: int,
    only: Sequence[str] = (),
) -> list[Disruption]:
    """Hold a load through all three events, or `only` some; after the end of each, for as much of the load's time.

    What the events themselves take comes on top: a slow machine must not take it from the time to recover.

    routers: 2 for a second one that is asked where the edge would ask it; 1: nobody stands in for it.
    """
    ports = [target.port() for _ in range(routers)]
    arm = routers_together(arm) if routers > 1 else arm
    running = {port: await asyncio.to_thread(target.start_router, arm, port) for port in ports}
    front = target.front(arm, ports[0])
    if routers > 1:
        front = replace(front, backup=target.front(arm, ports[1]).url, unready_404=arm.profile == DYNAMO)
    holder = Holder(front, replace(load, seconds=_EVER_S), conversations, seed)
    events: list[tuple[str, float, float]] = []
    new: list[Worker] = []

    async def do(what: str, event: Callable[[], Awaitable[None]]) -> None:
        began = time.monotonic()
        await event()
        events.append((what, began, time.monotonic()))

    async def killed() -> None:
        await asyncio.to_thread(target.kill, _KILLED)
        await asyncio.sleep(_DOWN_S)
        await asyncio.to_thread(target.revive, _KILLED)

    async def restart(port: int) -> None:
        await asyncio.to_thread(target.end_router, running[port])
        running[port] = await asyncio.to_thread(target.start_router, arm, port)

    async def restarted() -> None:
        await restart(ports[0])

    async def joined() -> None:
        new.append(await asyncio.to_thread(target.join))
        if arm.profile == ROUTER:
            # The list is on the command line: the role restarts them with the new one, one after the other.
            for port in ports:
                await restart(port)

    every = ((KILLED, killed), (RESTARTED, restarted), (JOINED, joined))
    chosen = [(what, event) for what, event in every if not only or what in only]
    after_s = load.seconds / (0.5 + len(chosen))
    held_task = asyncio.create_task(holder.run())
    try:
        # The first event comes when some conversations have gone on.
        await asyncio.sleep(0.5 * after_s)
        for what, event in chosen:
            await do(what, event)
            await asyncio.sleep(after_s)
        holder.end()
        held = await held_task
    finally:
        held_task.cancel()
        for child in running.values():
            await asyncio.to_thread(target.end_router, child)
    batches, workers = target.events(), [worker.name for worker in target.workers]
    for worker in new:
        # Another round, or another arm, begins with the workers that this one began with.
        await asyncio.to_thread(target.leave, worker.name)
    ends = [start for _, start, _ in events[1:]] + [held.ended]
    return [
        judge_event(
            target,
            what,
            start,
            end,
            until,
            held.answers,
            batches or [],
            workers=workers,
            killed=_KILLED if what == KILLED else None,
        )
        for (what, start, end), until in zip(events, ends, strict=True)
    ]


class Known(Protocol):
    """What must be known of a target to judge an event: see Target."""

    block_size: int

    @property
    def workers(self) -> Sequence[Worker]: ...  # noqa: D102

    def tokens(self, texts: Sequence[str]) -> list[list[int]]: ...  # noqa: D102


def judge_event(
    target: Known,
    what: str,
    start: float,
    end: float,
    until: float,
    answers: Sequence[Answer],
    batches: Sequence[Batch],
    enough: int = _ENOUGH,
    workers: Sequence[str] | None = None,
    killed: str | None = None,
) -> Disruption:
    """Return what an event from `start` to `end` did to the requests that it met, and to those until `until`.

    workers: those that there were, if others are there now. killed: the one that was, if answers tell who began them.
    """
    # Also those that were under way when it happened.
    met = [answer for answer in answers if answer.ended >= start and answer.sent < until]
    failed = [answer for answer in met if not answer.ok]
    names = [worker.name for worker in target.workers] if workers is None else workers
    cut = [answer for answer in failed if answer.request.stream and answer.first is not None]
    windows: list[tuple[float, int, int]] = []
    begin = end
    while begin < until:
        stop = begin + WINDOW_S
        found = None
        while stop <= until and found is None:
            window = [answer for answer in answers if answer.ok and begin <= answer.last_sent < stop]
            before = [answer for answer in answers if answer.ok and answer.last_sent < begin]
            judged = {(answer.request.conversation, answer.request.turn) for answer in window}
            one = locality([*before, *window], names, batches, target.tokens, target.block_size, judged)
            if one.resident >= enough and one.share is not None:
                found = one
            else:
                stop += WINDOW_S
        if found is None:
            break
        windows.append((stop - end, found.landed, found.resident))
        begin = stop
    return Disruption(
        what,
        len(met),
        len(failed),
        len(cut),
        sum(answer.attempts > 1 for answer in met if answer.ok),
        back(windows),
        tuple((at, landed / resident) for at, landed, resident in windows),
        tuple(dict.fromkeys(answer.error for answer in failed if answer.error))[:3],
        sum(what == KILLED and answer.last_sent < start + _KILL_S for answer in cut),
        sum(
            _under_way(answer, start) and killed is not None and answer.worker == killed for answer in met if answer.ok
        ),
    )


def _under_way(answer: Answer, at: float) -> bool:
    return answer.request.stream and answer.first is not None and answer.first < at < answer.ended


def routers_together(arm: Arm) -> Arm:
    """Return an arm as the roles set it for several routers: Dynamo's tell each other how busy workers are."""
    return replace(arm, flags=(*arm.flags, *REPLICAS)) if arm.policy == "kv" else arm


def back(windows: Sequence[tuple[float, int, int]]) -> float | None:
    """Return the end of the first window in which locality holds, and from which on it holds over all the rest.

    windows: each with its end, and of its resident turns how many landed, and how many there were. A window alone has
    so few that chance takes it below the bound now and then; what is left of the load together has enough.
    """
    for index, (at, landed, resident) in enumerate(windows):
        rest = windows[index:]
        enough = _BACK * sum(there for _, _, there in rest)
        if landed >= _BACK * resident and sum(here for _, here, _ in rest) >= enough:
            return at
    return None
