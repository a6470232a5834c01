"""Take replicas out of service: no new requests, then wait until the running ones have ended."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from kvstrata.drain.engine import EngineHost, Load
from kvstrata.drain.errors import NotDoneError, RefusedError
from kvstrata.drain.replicas import Replica, every
from kvstrata.drain.routers import RouterHost
from kvstrata.drain.site import Site
from kvstrata.verify import wait
from kvstrata.verify.check import UnableError
from kvstrata.verify.http import UnansweredError

# Longer than a request needs from a router that chose this replica just before it was told, to the engine's count.
QUIET_S = 2.0
POLL_S = 0.5


@dataclass(frozen=True)
class Leaving:
    """How. `timeout_s` bounds the wait for running requests, in seconds."""

    timeout_s: float
    force: bool = False
    stop: bool = False
    quiet_s: float = QUIET_S
    poll_s: float = POLL_S


def drain(site: Site, replicas: Sequence[Replica], how: Leaving) -> None:
    """Take `replicas` out of service.

    Raises:
        RefusedError: nobody would be left to serve, or a router can't be asked, and `force` isn't given.
        NotDoneError: they get no new requests, but running ones did not end in time.
        UnableError: a node can't be reached.
    """
    routers = _routers(site, how.force)
    _refuse_the_last(site, routers, replicas, how.force)
    for router in routers:
        for replica in replicas:
            router.remove(replica.url)
            site.say(f"the router on {router.name} chooses {replica.name} no more")
    deadline = time.monotonic() + how.timeout_s
    for replica in replicas:
        left_s = max(0.0, deadline - time.monotonic())
        if site.dynamo:
            _stop_worker(site, replica, left_s)
        else:
            _await_quiet(site, replica, how, left_s)
            if how.stop:
                site.engine(replica).systemctl("stop", how.timeout_s)
                site.say(f"{replica.engine.unit} on {replica.node.name} stopped")


def _routers(site: Site, force: bool) -> tuple[RouterHost, ...]:
    """The routers that can be told. One that can't would go on sending requests."""
    if not site.routers and not site.dynamo:
        raise RefusedError(
            "the inventory has no router to tell (group router): whoever asks the engines goes on asking"
        )
    reached = []
    for router in site.routers:
        try:
            router.workers()
        except (UnansweredError, UnableError) as error:
            why = f"the router on {router.name} can't be asked: {error}"
            if not force:
                raise RefusedError(f"{why}; it may still send requests. Allowed: with --force") from error
            site.say(f"{why}; going on without it")
            continue
        reached.append(router)
    return tuple(reached)


def _refuse_the_last(site: Site, routers: Sequence[RouterHost], replicas: Sequence[Replica], force: bool) -> None:
    leaving = {replica.url for replica in replicas}
    if site.dynamo:
        stay = [one for one in every(site.cluster) if one.url not in leaving and _serves(site.engine(one))]
        without = [] if stay else ["the site"]
    else:
        listed = {router.name: router.workers() for router in routers}
        healthy = {name: {url for url, well in workers.items() if well} for name, workers in listed.items()}
        # Where none of those that leave is in service, nothing is taken away.
        without = [
            f"the router on {name}"
            for name, urls in healthy.items()
            if not urls - leaving and listed[name].keys() & leaving
        ]
    if not without:
        return
    names = ", ".join(replica.name for replica in replicas)
    why = f"without {names} {' and '.join(without)} would have no healthy replica, and every request would fail"
    if not force:
        raise RefusedError(f"{why}. Allowed: fewer at a time, or --force")
    site.say(why)


def _serves(engine: EngineHost) -> bool:
    try:
        return engine.healthy()
    except UnableError:
        return False


def _await_quiet(site: Site, replica: Replica, how: Leaving, left_s: float) -> None:
    engine = site.engine(replica)
    seen: list[Load | str] = ["nothing yet"]
    quiet_since: list[float] = []

    def quiet() -> bool | None:
        try:
            load = engine.load()
        except UnansweredError as error:
            if engine.active() not in ("active", "reloading", "deactivating"):
                return True
            quiet_since.clear()
            seen[0] = f"no metrics ({error})"
            return None
        if load != seen[0]:
            site.say(f"{replica.name}: {load}")
        seen[0] = load
        if load.total:
            quiet_since.clear()
            return None
        quiet_since.append(time.monotonic())
        return True if quiet_since[-1] - quiet_since[0] >= how.quiet_s else None

    # The quiet itself is no work that could be late.
    if wait.until(quiet, left_s + how.quiet_s, how.poll_s) is None:
        raise NotDoneError(
            f"{replica.name} gets no new requests, but after {how.timeout_s:g} s it has {seen[0]}. Run this again to "
            "wait on, or undrain to put it back"
        )
    site.say(f"{replica.name} has no request left")


def _stop_worker(site: Site, replica: Replica, left_s: float) -> None:
    """A worker of Dynamo takes itself from discovery when it is stopped, and ends its requests first."""
    engine, unit = site.engine(replica), replica.engine.unit
    site.say(f"stopping {unit} on {replica.node.name}: it ends its requests first")
    try:
        engine.systemctl("stop", max(1.0, left_s))
    except UnableError as error:
        raise NotDoneError(f"{unit} on {replica.node.name} did not stop: {error}") from error
    result = engine.result()
    if result != "success":
        raise NotDoneError(
            f"{unit} on {replica.node.name} is stopped, but not in order (result {result}): requests that it was "
            "working on may have failed"
        )
    site.say(f"{replica.name} stopped in order")
