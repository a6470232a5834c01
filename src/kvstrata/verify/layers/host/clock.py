"""Whether a node's clock agrees with the controller's, and whether anything keeps it so."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from kvstrata.verify.check import Check, Json, NotCheckedError, UnableError, UnmetError
from kvstrata.verify.context import NodeContext
from kvstrata.verify.layers.host.survey import Survey

MORE_LOOKS = 4


@dataclass(frozen=True)
class Bounds:
    """Between which values the node's clock minus the controller's lies, in seconds."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        """The best single value."""
        return (self.low + self.high) / 2

    @property
    def half(self) -> float:
        """How far the true value can be from that."""
        return (self.high - self.low) / 2

    def narrowed(self, other: Bounds) -> Bounds:
        """What both say; the other alone where they contradict each other, as after a clock was set."""
        both = Bounds(max(self.low, other.low), min(self.high, other.high))
        return both if both.low <= both.high else other

    def within(self, limit_s: float) -> bool | None:
        """Whether the skew is at most `limit_s`; None where the bounds allow both."""
        if self.low >= -limit_s and self.high <= limit_s:
            return True
        return False if self.low > limit_s or self.high < -limit_s else None


def bounds(asked_at: float, began_at: float, ended_at: float, answered_at: float) -> Bounds:
    """What one question tells: the node's times lie between the controller's, so the round trip is the uncertainty.

    The node began after it was asked, so its clock is ahead by no more than began - asked; and the controller had the
    answer after the node had ended, so it is behind by no more than answered - ended.
    """
    return Bounds(ended_at - answered_at, began_at - asked_at)


def checks(ctx: NodeContext, survey: Survey) -> Iterator[Check]:
    """The skew, and the kernel's own state of its clock."""
    limit_s = ctx.cluster.verify.limits.clock_skew_s
    data: dict[str, Json] = {}
    yield ctx.question(
        "host.clock",
        "clock against the controller's",
        f"at most {limit_s:g} s apart",
        ctx.command("date --iso-8601=ns"),
    ).ask(partial(_skew, ctx, survey, limit_s, data), data)
    yield ctx.question(
        "host.clock",
        "clock kept by a time daemon",
        "the kernel's clock is synchronised",
        ctx.command("timedatectl"),
    ).ask(partial(_kept, survey))


def _skew(ctx: NodeContext, survey: Survey, limit_s: float, data: dict[str, Json]) -> str:
    began, ended = _stamp(survey.part("begin")), _stamp(survey.part("end"))
    known = bounds(survey.asked_at, began, ended, survey.answered_at)
    for _ in range(MORE_LOOKS):
        if known.within(limit_s) is not None:
            break
        known = known.narrowed(_look(ctx, time.time))
    data |= {"skew_s": round(known.middle, 4), "uncertainty_s": round(known.half, 4)}
    side = "ahead" if known.middle > 0 else "behind"
    seen = f"{abs(known.middle):.3f} s {side}, known to {known.half:.3f} s"
    verdict = known.within(limit_s)
    if verdict is None:
        raise UnableError(f"{seen}: the way to the node takes too long to tell")
    if not verdict:
        raise UnmetError(seen)
    return seen


def _look(ctx: NodeContext, clock: Callable[[], float]) -> Bounds:
    asked = clock()
    stamp = _stamp(ctx.shell.run(["date", "+%s.%N"]).text())
    return bounds(asked, stamp, stamp, clock())


def _stamp(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UnableError(f"`date` said {text[:60]!r}") from None


def _kept(survey: Survey) -> str:
    said = survey.part("clock")
    if survey.container:
        raise NotCheckedError(f"that the clock stays right: it is that of the container's host ({survey.container})")
    if said == "yes":
        return "synchronised"
    if said == "no":
        raise NotCheckedError("that the clock stays right: no time daemon keeps it, it only agrees at this moment")
    raise NotCheckedError(f"that the clock stays right: `timedatectl` said {said[:80] or 'nothing'!r}")
