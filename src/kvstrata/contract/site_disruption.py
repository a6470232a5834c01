"""Point 4 on a site: a worker is killed and comes back, the router restarts, a worker is drained and comes back.

What each of them needs afterwards is what systemd, the routers and `kvstrata undrain` do anyway; at the end, and after
Ctrl-C, everything is in service as before.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from kvstrata.bench.errors import BenchError
from kvstrata.contract import site_routers, site_units
from kvstrata.contract.attribution import attributed
from kvstrata.contract.disruption import KILLED, RESTARTED, Disruption, judge_event
from kvstrata.contract.load import Holder, Load
from kvstrata.contract.run import Say
from kvstrata.contract.site import SiteTarget
from kvstrata.contract.workload import Conversations
from kvstrata.drain.errors import NotDoneError, RefusedError
from kvstrata.drain.leave import Leaving, drain
from kvstrata.drain.rejoin import undrain
from kvstrata.verify import dynamo, wait
from kvstrata.verify.check import UnableError, UnmetError
from kvstrata.verify.faults.stops import forget_restarts, signals_held
from kvstrata.verify.http import UnansweredError

DRAINED = "worker drained and back"
_POLL_S = 0.5
_BACK_S = 900.0
_DRAIN_S = 300.0
_RESTART_S = 180.0
# So many answers before the first event: some conversations have then gone on.
_BEFORE = 15
# A site answers less often than mocked engines do: a window is judged with fewer turns, of which then none may miss.
_ENOUGH = 6


@dataclass(frozen=True)
class Event:
    """One of the events; `do` returns when the site is whole again."""

    what: str
    do: Callable[[], None]


class Disrupter:
    """Does things to a site, and undoes them."""

    def __init__(self, target: SiteTarget) -> None:
        """Do nothing yet. The first replica is the one that is killed, and the last one that is drained."""
        self._target, self._site = target, target.site
        names = list(target.replicas)
        self._killed, self._drained = names[0], names[-1]

    def events(self) -> tuple[Event, ...]:
        """Return all three, in order."""
        return Event(KILLED, self._kill), Event(RESTARTED, self._restart), Event(DRAINED, self._drain)

    def restore(self) -> None:
        """Have everything in service again, whatever was done."""
        with signals_held(self._site.say, "putting everything back into service"):
            for ctx in self._target.hosts:
                ctx.shell.run(["systemctl", "start", "--", self._target.router(ctx).unit], _RESTART_S)
            undrain(self._site, tuple(self._target.replicas.values()), _BACK_S)
            for name in {self._killed, self._drained}:
                replica = self._target.replicas[name]
                # Restarts that were made here are no sign of a sick unit.
                forget_restarts(self._site.contexts[replica.node.name].shell, [replica.engine.unit])

    def _kill(self) -> None:
        replica = self._target.replicas[self._killed]
        shell, unit = self._site.contexts[replica.node.name].shell, replica.engine.unit
        before, numbers = site_units.main_pid(shell, unit), self._numbers(self._killed)
        shell.run(["kill", "-KILL", "--", str(before)]).text()
        self._emptied(self._killed)

        def started() -> bool | None:
            return site_units.main_pid(shell, unit) not in (0, before) or None

        self._await(started, f"systemd starts {unit} on {replica.node.name} again")
        self._follow(self._killed)
        self._await_served(self._killed, numbers)

    def _restart(self) -> None:
        ctx = self._target.hosts[0]
        ctx.shell.run(["systemctl", "restart", "--", self._target.router(ctx).unit], _RESTART_S).text()
        service, engines = self._target.services()[0], len(self._target.replicas)
        self._await(
            lambda: site_routers.known(service, self._target.profile) >= engines or None,
            f"the router on {ctx.node.name} knows all {engines} engines again",
        )

    def _drain(self) -> None:
        replica, numbers = self._target.replicas[self._drained], self._numbers(self._drained)
        try:
            drain(self._site, [replica], Leaving(_DRAIN_S))
        finally:
            if self._site.dynamo:
                # A worker of Dynamo is drained by stopping it, and comes back with an empty cache.
                self._emptied(self._drained)
                self._site.engine(replica).systemctl("start", _BACK_S)
                self._follow(self._drained)
        undrain(self._site, [replica], _BACK_S)
        self._await_served(self._drained, numbers if self._site.dynamo else frozenset())

    def _numbers(self, name: str) -> frozenset[int]:
        """By which numbers frontends know a worker now: another process has another one."""
        if not self._site.dynamo:
            return frozenset()
        where = dynamo.address(self._target.replicas[name].engine)
        return frozenset(
            number for service in self._target.services() for number in dynamo.instances(service).get(where, ())
        )

    def _await_served(self, name: str, before: frozenset[int]) -> None:
        """Wait until an engine is healthy, and every router would choose it."""
        replica = self._target.replicas[name]
        engine = self._site.engine(replica)

        def served() -> bool | None:
            try:
                if not engine.healthy():
                    return None
                if not self._site.dynamo:
                    return all(host.workers().get(replica.url) for host in self._site.routers) or None
                where = dynamo.address(replica.engine)
                lists = [dynamo.instances(service).get(where, []) for service in self._target.services()]
                return all(set(numbers) - before for numbers in lists) or None
            except (UnansweredError, UnableError):
                return None

        self._await(served, f"{name} serves again")

    def _await(self, condition: Callable[[], bool | None], what: str) -> None:
        if wait.until(condition, _BACK_S, _POLL_S) is None:
            raise UnableError(f"waited {_BACK_S:g} s in vain until {what}")

    def _emptied(self, name: str) -> None:
        if self._target.recorded is not None:
            self._target.recorded.emptied(name)

    def _follow(self, name: str) -> None:
        if self._target.recorded is not None:
            self._target.recorded.follow(name)


async def disrupt(
    target: SiteTarget, disrupter: Disrupter, load: Load, talk: Conversations, seed: int, after_s: float, say: Say
) -> tuple[list[Disruption], list[str]]:
    """Hold a load, and have one event after the other, each with so many seconds to see what follows.

    Returns:
        What each event did, and what went wrong with events. After one that went wrong everything is put back, which
        belongs to the event.

    Raises:
        UnableError, NotDoneError: something could not be put back.
    """
    holder = Holder(target.front(), load, talk, seed)
    done, wrong = list[tuple[str, float, float]](), list[str]()
    held_task = asyncio.create_task(holder.run())
    try:
        while len(holder.answers) < _BEFORE and not held_task.done():
            await asyncio.sleep(_POLL_S)
        for event in disrupter.events():
            began = time.monotonic()
            try:
                await asyncio.to_thread(event.do)
            except (BenchError, UnableError, UnmetError, NotDoneError, RefusedError) as error:
                wrong.append(f"{event.what}: {error}")
                say(f"{event.what}: FAILED: {error}")
                await asyncio.to_thread(disrupter.restore)
            done.append((event.what, began, time.monotonic()))
            say(f"{event.what}: whole again after {done[-1][2] - began:.0f} s")
            # What is looked at is the load that goes on.
            await asyncio.wait([held_task], timeout=after_s)
        holder.end()
        held = await held_task
    finally:
        held_task.cancel()
    batches = target.events() or []
    answers = attributed(held.answers, batches, target.tokens, target.block_size)
    ends = [start for _, start, _ in done[1:]] + [held.ended]
    found = [
        judge_event(target, what, start, end, until, answers, batches, _ENOUGH)
        for (what, start, end), until in zip(done, ends, strict=True)
    ]
    return found, wrong
