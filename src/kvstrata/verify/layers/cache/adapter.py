"""One chunk through the adapter's own code on the node, to some stores and back (kvstrata.l2.probe)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from kvstrata.cluster import LMCache
from kvstrata.verify.check import Json, NotCheckedError, UnableError, UnmetError
from kvstrata.verify.context import NodeContext
from kvstrata.verify.layers.cache.state import Place, State, places

EVERY_STORE = 16
"""Sites with at most so many stores have all of them asked from every node. In larger ones a node asks its own and
those of its neighbour, so that each store is asked twice, and the load grows with the site and not with its square."""
RUN_S = 30.0
# As lmcache.service itself: its user, its credentials, the release's interpreter. `-I`: nothing of the caller's.
_SCRIPT = r"""
unit=$1; shift
user=$(systemctl show --property=User --value -- "$unit")
user=${user:-root}
cd /
exec setpriv --reuid="$user" --regid="$(id -g "$user")" --init-groups \
  env -i PATH=/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 CREDENTIALS_DIRECTORY="/run/credentials/$unit" \
  timeout -k 1 25 /opt/kvstrata/current/bin/python -I -m kvstrata.l2.probe /etc/kvstrata/lmcache/server.json "$@"
"""
_STEPS = ("store", "lookup", "load", "delete")
# What `timeout` ends with, and the shells for a program that is not there.
_TIMED_OUT = 124


def through(ctx: NodeContext, lmcache: LMCache, state: State, numbers: dict[str, Json]) -> str:
    """What the chunk met on its way; UnmetError names each store where it did not come back whole."""
    asked = [place for place in chosen(ctx) if place.endpoint in state.endpoints]
    away = [place.label for place in asked if place.endpoint in state.left_alone]
    asked = [place for place in asked if place.endpoint not in state.left_alone]
    if not asked:
        why = "all are left alone, see cache.breaker" if away else "it knows none of them, see cache.l2"
        raise NotCheckedError(f"that a chunk comes back from the stores: {why}")
    found = run(ctx, lmcache, [place.endpoint for place in asked])
    visits = {place.label: found["stores"][place.endpoint] for place in asked}
    numbers |= {"bytes": found["bytes"], "seconds": found["seconds"]}
    numbers["stores"] = {place.store.address: dict(found["stores"][place.endpoint]["took_s"]) for place in asked}
    wrong = [f"{label}: {visit['why']}" for label, visit in visits.items() if not visit["ok"]]
    if wrong:
        raise UnmetError("; ".join(wrong))
    beside = f"; left alone, so not asked: {', '.join(away)}" if away else ""
    return f"{found['bytes'] >> 20} MiB, {_times(visits.values())} on {len(visits)} stores, sha256 equal{beside}"


def chosen(ctx: NodeContext) -> list[Place]:
    """The stores that this node asks."""
    every = list(places(ctx.cluster).values())
    if len(every) <= EVERY_STORE:
        return every
    near = {ctx.node.name, *([ctx.peer.node.name] if ctx.peer else [])}
    return [place for place in every if place.node.name in near][:EVERY_STORE]


def run(ctx: NodeContext, lmcache: LMCache, endpoints: list[str]) -> Mapping[str, Any]:
    """Run the probe on the node; return what it printed, which holds every endpoint."""
    done = ctx.shell.run(["sh", "-c", _SCRIPT, "probe", lmcache.unit, *endpoints], timeout_s=RUN_S)
    said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
    if done.exit_code == _TIMED_OUT:
        raise UnableError("the probe did not end in time")
    if done.exit_code != 0 and "No module named" in said:
        raise NotCheckedError("that a chunk comes back from the stores: the node's release has no probe; run site.yml")
    if done.exit_code != 0:
        raise UnableError(f"the probe exited {done.exit_code} and said: {said}")
    try:
        found: Mapping[str, Any] = json.loads(done.stdout)
        if all(endpoint in found["stores"] for endpoint in endpoints):
            return found
    except (ValueError, KeyError, TypeError):
        pass
    raise UnableError(f"the probe said: {said[:200]}")


def _times(visits: Iterable[Mapping[str, Any]]) -> str:
    """The range of each step over the stores."""
    took = [visit["took_s"] for visit in visits]
    words = {"store": "stored", "lookup": "found", "load": "loaded", "delete": "deleted"}
    parts = []
    for step in _STEPS:
        times = sorted(1000 * one[step] for one in took)
        low, high = f"{times[0]:.0f}", f"{times[-1]:.0f}"
        parts.append(f"{words[step]} in {low if low == high else f'{low} to {high}'} ms")
    return ", ".join(parts)
