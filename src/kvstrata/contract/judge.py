"""The contract's points and their bounds, and the verdict on each from the figures of all rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from kvstrata.contract.disruption import KILLED, Disruption
from kvstrata.contract.figures import Figures
from kvstrata.contract.overhead import Overhead

LOCALITY, SPREAD, HITS, DISRUPTION, STREAMS, OVERHEAD, HOT = (
    "locality",
    "spread",
    "hits",
    "disruption",
    "streams",
    "overhead",
    "hot",
)
LEAST_LOCALITY = 0.9
MOST_RATIO = 1.3
MOST_OVERHEAD_MS = 2.0
MOST_RECOVERY_S = 30.0
# Below this share of what was asked for, a rate was not reached.
_REACHED = 0.98
# With fewer, a share says nothing.
_ENOUGH = 20
# Of Poisson's numbers with this mean, one of 32 is above 1.3 times the mean in half of all cases.
_ENOUGH_EACH = 50
# Of the time that answers took; above, the machine was measured and not the router.
MOST_WAITING = 0.1
# Of the times that a router asked for a prompt's tokens.
MOST_UNTOLD = 0.05


@dataclass(frozen=True)
class Verdict:
    """One point of the contract for one arm. `ok` is None where it could not be judged, and `said` tells why."""

    arm: str
    point: str
    ok: bool | None
    value: float | None
    bound: float | None
    said: str


def locality(arm: str, rounds: Sequence[Figures]) -> Verdict:
    """(1) At least nine of ten turns land where the prompt before is, of those whose prompt is anywhere."""
    known = [figures.locality for figures in rounds if figures.locality is not None]
    resident, landed = sum(one.resident for one in known), sum(one.landed for one in known)
    followups = sum(one.followups for one in known)
    if resident < _ENOUGH:
        return Verdict(
            arm,
            LOCALITY,
            None,
            None,
            LEAST_LOCALITY,
            f"NOT JUDGED: {resident} turns with a resident prefix; at least {_ENOUGH} are needed",
        )
    if late := _late(rounds):
        return Verdict(arm, LOCALITY, None, landed / resident, LEAST_LOCALITY, late)
    share, same = landed / resident, sum(one.same_worker for one in known) / followups
    said = f"{landed} of {resident} resident; {followups - resident} of {followups} evicted everywhere"
    return Verdict(
        arm, LOCALITY, share >= LEAST_LOCALITY, share, LEAST_LOCALITY, f"{said}; {same:.0%} to the worker before"
    )


def spread(arm: str, rounds: Sequence[Figures], point: str = SPREAD) -> Verdict:
    """(2), (6) No worker has more than 1.3 times the mean, of requests and of computed prompt tokens."""
    requests = median(figures.spread.requests_ratio for figures in rounds)
    computed = median(figures.spread.computed_ratio for figures in rounds)
    worst = max(requests, computed)
    said = f"requests {requests:.2f}, computed tokens {computed:.2f}"
    each = min(sum(figures.spread.requests.values()) / len(figures.spread.requests) for figures in rounds)
    if each < _ENOUGH_EACH:
        few = f"NOT JUDGED: {each:.0f} requests for each worker, so few that chance alone can exceed the bound"
        return Verdict(arm, point, None, worst, MOST_RATIO, f"{few}; {said}")
    if late := _late(rounds):
        return Verdict(arm, point, None, worst, MOST_RATIO, f"{late}; {said}")
    if hot := [figures.hot.requests_ratio for figures in rounds if figures.hot is not None]:
        said += f"; of the requests with the shared prefix {median(hot):.2f}"
    return Verdict(arm, point, worst <= MOST_RATIO, worst, MOST_RATIO, said)


def _late(rounds: Sequence[Figures]) -> str | None:
    """Return why figures are not to be trusted: the machine was too small, or busy with other things."""
    untold = [figures.untold for figures in rounds if figures.untold is not None]
    if untold and median(untold) > MOST_UNTOLD:
        return f"NOT JUDGED: the router asked engines for tokens of prompts and had none in time, {median(untold):.0%}"
    waiting = [figures.waiting for figures in rounds if figures.waiting is not None]
    if not waiting or median(waiting) <= MOST_WAITING:
        return None
    return f"NOT JUDGED: programs waited for a CPU for {median(waiting):.0%} of the time that answers took"


def hits(arm: str, rounds: Sequence[Figures]) -> Verdict:
    """(3) The hit rate: compared, without a bound."""
    rate = hit_rate(rounds)
    return Verdict(arm, HITS, None, rate, None, f"{rate:.1%} of the prompt tokens were cached")


def hit_rate(rounds: Sequence[Figures]) -> float:
    """Return the cached of all prompt tokens of all rounds."""
    asked = sum(figures.prompt_tokens for figures in rounds)
    return sum(figures.cached_tokens for figures in rounds) / asked if asked else 0.0


def disruption(arm: str, found: Sequence[Disruption]) -> Verdict:
    """(4) Nothing fails that a router can save, and locality is back within 30 s, whatever happened."""
    if not found:
        return Verdict(arm, DISRUPTION, None, None, MOST_RECOVERY_S, "NOT RUN")
    parts = []
    for what, rounds in by_event(found).items():
        backs = [one.back_s for one in rounds]
        said = [f"{sum(one.avoidable for one in rounds)} of {sum(one.requests for one in rounds)} failed"]
        if lost := sum(one.lost_streams for one in rounds):
            said.append(f"{lost} streams lost that were under way on it")
        said.append(f"{sum(one.retried for one in rounds)} retried")
        known = [back for back in backs if back is not None]
        if missing := len(backs) - len(known):
            said.append(f"locality NOT back in {missing} of {len(backs)}")
        if known:
            said.append(f"locality back after {median(known):.0f} s, {max(known):.0f} s in the worst of {len(backs)}")
        parts.append(f"{what}: {', '.join(said)}")
    worst = max((one.back_s for one in found if one.back_s is not None), default=None)
    slow = any(one.back_s is None or one.back_s > MOST_RECOVERY_S for one in found)
    ok = not slow and not any(one.avoidable for one in found)
    return Verdict(arm, DISRUPTION, ok, worst, MOST_RECOVERY_S, "; ".join(parts))


def streams(arm: str, found: Sequence[Disruption]) -> Verdict:
    """(4) Nor does a stream fail that was under way on a worker that is killed: another worker must go on with it."""
    killed = [one for one in found if one.what == KILLED]
    if not killed:
        return Verdict(arm, STREAMS, None, None, 0, "NOT RUN: no worker was killed")
    lost, saved = sum(one.lost_streams for one in killed), sum(one.saved_streams for one in killed)
    said = (
        f"{lost} streams lost, {saved} went on elsewhere, of those under way on {len(killed)} workers that were killed"
    )
    if not lost + saved:
        return Verdict(arm, STREAMS, None, None, 0, f"NOT JUDGED: no stream was known to be under way there; {said}")
    return Verdict(arm, STREAMS, not lost, lost, 0, said)


def by_event(found: Sequence[Disruption]) -> dict[str, list[Disruption]]:
    """Return the rounds of each event."""
    events: dict[str, list[Disruption]] = {}
    for one in found:
        events.setdefault(one.what, []).append(one)
    return events


def overhead(arm: str, found: Sequence[Overhead]) -> Verdict:
    """(5) The router adds at most 2 ms to the 99th percentile at 500 requests a second."""
    if not found:
        return Verdict(arm, OVERHEAD, None, None, MOST_OVERHEAD_MS, "NOT RUN")
    added = median(one.added_p99_ms for one in found)
    reached = median(one.reached_per_s / one.wanted_per_s for one in found)
    said = (
        f"P99 {median(one.routed_p99_ms for one in found):.2f} ms routed, "
        f"{median(one.direct_p99_ms for one in found):.2f} ms direct, P50 adds "
        f"{median(one.added_p50_ms for one in found):.2f} ms, at {found[0].wanted_per_s:g}/s; cores used: router "
        f"{median(one.router_cores for one in found):.2f}, client {median(one.client_cores for one in found):.2f}"
    )
    if failed := sum(one.failed for one in found):
        return Verdict(arm, OVERHEAD, False, added, MOST_OVERHEAD_MS, f"{failed} requests failed; {said}")
    if reached < _REACHED:
        return Verdict(
            arm, OVERHEAD, False, added, MOST_OVERHEAD_MS, f"only {reached:.0%} of the rate was reached; {said}"
        )
    return Verdict(arm, OVERHEAD, added <= MOST_OVERHEAD_MS, added, MOST_OVERHEAD_MS, said)
