"""Who is in service: each replica as itself, systemd and every router see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from kvstrata.drain.engine import Load
from kvstrata.drain.replicas import Replica, every
from kvstrata.drain.site import Site
from kvstrata.verify.access import parallel
from kvstrata.verify.check import Json, UnableError
from kvstrata.verify.http import UnansweredError

_EVER_S = 600.0


class Seen(StrEnum):
    """How a router sees a replica."""

    IN = "in service"
    OUT = "drained"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "no answer"


@dataclass(frozen=True)
class Row:
    """One replica. `routers` is empty with Dynamo, whose frontends can't be asked."""

    replica: Replica
    unit: str
    healthy: bool
    load: Load | None
    routers: Mapping[str, Seen]

    @property
    def in_service(self) -> bool:
        """Whether it gets requests from every router that answers."""
        seen = [one for one in self.routers.values() if one is not Seen.UNKNOWN]
        return self.healthy and all(one is Seen.IN for one in seen)

    def as_json(self) -> dict[str, Json]:
        """The row for machines."""
        return {
            "replica": self.replica.name,
            "url": self.replica.url,
            "unit": self.unit,
            "healthy": self.healthy,
            "running": self.load.running if self.load else None,
            "waiting": self.load.waiting if self.load else None,
            "routers": {name: seen.value for name, seen in self.routers.items()},
            "in_service": self.in_service,
        }


def status(site: Site) -> list[Row]:
    """Ask all replicas and routers at the same time; nothing is changed."""
    listed = dict(parallel({router.name: _workers(router.workers) for router in site.routers}, _EVER_S))
    rows = dict(parallel({one.name: _row(site, one, listed) for one in every(site.cluster)}, _EVER_S))
    return [rows[one.name] for one in every(site.cluster) if one.name in rows]


def _workers(ask: Callable[[], dict[str, bool]]) -> Callable[[], dict[str, bool] | None]:
    def asked() -> dict[str, bool] | None:
        try:
            return ask()
        except (UnansweredError, UnableError):
            return None

    return asked


def _row(site: Site, replica: Replica, listed: Mapping[str, dict[str, bool] | None]) -> Callable[[], Row]:
    def asked() -> Row:
        engine = site.engine(replica)
        routers = {name: _seen(workers, replica.url) for name, workers in listed.items()}
        try:
            unit, healthy = engine.active(), engine.healthy()
        except UnableError:
            return Row(replica, "no answer", False, None, routers)
        try:
            load = engine.load()
        except UnansweredError:
            load = None
        return Row(replica, unit, healthy, load, routers)

    return asked


def _seen(workers: Mapping[str, bool] | None, url: str) -> Seen:
    if workers is None:
        return Seen.UNKNOWN
    if url not in workers:
        return Seen.OUT
    return Seen.IN if workers[url] else Seen.UNHEALTHY
