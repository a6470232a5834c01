"""Put replicas back into service."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from kvstrata.drain.engine import EngineHost
from kvstrata.drain.errors import NotDoneError
from kvstrata.drain.replicas import Replica
from kvstrata.drain.routers import RouterHost
from kvstrata.drain.site import Site
from kvstrata.verify import wait
from kvstrata.verify.check import UnableError
from kvstrata.verify.http import UnansweredError

POLL_S = 0.5


def undrain(site: Site, replicas: Sequence[Replica], timeout_s: float, poll_s: float = POLL_S) -> None:
    """Start what is stopped, await its health, and have every router choose it again.

    Raises:
        NotDoneError: an engine did not become healthy within `timeout_s` seconds, or a router does not take it.
        UnableError: a node can't be reached.
    """
    deadline = time.monotonic() + timeout_s
    for replica in replicas:
        engine = site.engine(replica)
        if engine.active() in ("inactive", "failed"):
            site.say(f"starting {replica.engine.unit} on {replica.node.name}")
            engine.systemctl("start", timeout_s)
    for replica in replicas:
        engine = site.engine(replica)
        site.say(f"waiting for {replica.name} to be healthy")
        left_s = max(0.0, deadline - time.monotonic())
        if wait.until(partial(_healthy, engine), left_s, poll_s) is None:
            unit = replica.engine.unit
            raise NotDoneError(
                f"{replica.name} is not healthy after {timeout_s:g} s, and stays out of service: journalctl -u {unit} "
                f"on {replica.node.name} says more"
            )
    # All of them, before one router that is down ends this.
    missing = [why for router in site.routers for replica in replicas if (why := _added(site, router, replica, poll_s))]
    if missing:
        raise NotDoneError("; ".join(missing))


def _healthy(engine: EngineHost) -> bool | None:
    return engine.healthy() or None


def _added(site: Site, router: RouterHost, replica: Replica, poll_s: float) -> str | None:
    """Put it back at one router; what is wrong, if something is."""
    try:
        router.add(replica.url)
        if wait.until(lambda: router.workers().get(replica.url) or None, 30.0, poll_s) is None:
            return f"the router on {router.name} does not take {replica.name} for healthy"
    except (UnansweredError, UnableError) as error:
        return f"the router on {router.name} did not take {replica.name} back: {error}"
    site.say(f"the router on {router.name} chooses {replica.name} again")
    return None
