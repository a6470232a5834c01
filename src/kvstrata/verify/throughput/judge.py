"""Whether a load was answered, and fast enough. Pure functions: seen, or UnmetError."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from kvstrata.cluster import ThroughputSettings
from kvstrata.verify.check import NotCheckedError, UnableError, UnmetError
from kvstrata.verify.throughput.figures import Figures, Sample

# The figures compared with a baseline: more is better for the first; P99 is left out, of a short load it is one sample.
RATES = ("output_tokens_per_s",)
TIMES = ("ttft_p50_s", "ttft_p95_s", "itl_p50_s", "itl_p95_s")
# Of one core. An event costs the sender some 0.2 ms: beyond this share it delays what it measures.
BUSY_SHARE = 0.6


@dataclass(frozen=True)
class Bound:
    """One bound of the inventory; `figure` is the name of what it bounds, `least` whether from below."""

    figure: str
    value: float
    least: bool

    def __str__(self) -> str:
        """In words, with its unit."""
        unit = "tokens/s" if self.least else "s"
        return f"{'at least' if self.least else 'at most'} {self.value:g} {unit}"


def bounds(settings: ThroughputSettings) -> list[Bound]:
    """Those that are set, in their order."""
    found = []
    for figure in (*RATES, "ttft_p50_s", "ttft_p95_s", "ttft_p99_s", "itl_p50_s", "itl_p95_s", "itl_p99_s"):
        least = figure in RATES
        value: float | None = getattr(settings, f"{'min' if least else 'max'}_{figure}")
        if value is not None:
            found.append(Bound(figure, value, least))
    return found


def requests(samples: Sequence[Sample], asked: int, max_s: float, judged: bool) -> str:
    """Every request that was begun was answered.

    Too few in the time are no measurement: UnableError where something is `judged` by it, else NotCheckedError.
    """
    failed = Counter(sample.error for sample in samples if sample.error is not None)
    answered = sum(sample.whole for sample in samples)
    cut, never = sum(sample.cut for sample in samples), asked - len(samples)
    in_time = f"; {cut} were cut off and {never} not begun when {max_s:g} s were over" if cut or never else ""
    seen = f"{answered} of {asked} answered to their end{in_time}"
    if failed:
        told = "; ".join(f"{count} failed: {error}" for error, count in failed.most_common(3))
        raise UnmetError(f"{seen}; {told}")
    if 2 * answered < asked:
        few = f"only {seen}: too few to measure; ask for fewer requests, or set a greater max_s"
        raise UnableError(few) if judged else NotCheckedError(f"how fast the site is is not proven: {few}")
    return seen


def sender(busy_share: float) -> str:
    """What must be said of figures whose sender was busy itself; empty where it was not."""
    if busy_share <= BUSY_SHARE:
        return ""
    return f"this machine, which sent the load, was busy itself ({busy_share:.0%} of a core): the site may be faster"


def bound(figures: Figures, wanted: Bound, busy_share: float = 0.0) -> str:
    """The figure is within its bound. One that is not is no failure where the sender itself was busy."""
    value: float | None = getattr(figures, wanted.figure)
    if value is None:
        raise UnableError(f"no sample tells {wanted.figure}")
    seen = f"{value:.1f} tokens/s" if wanted.least else f"{value:.4f} s"
    if value < wanted.value if wanted.least else value > wanted.value:
        raise _unmet(seen, busy_share)
    return seen


def against(figures: Figures, before: Figures, tolerance: float, busy_share: float = 0.0) -> str:
    """No figure is worse than the baseline's by more than the tolerance, a share. As to the sender, see `bound`."""
    told, worse = [], []
    for name in (*RATES, *TIMES):
        now, then = getattr(figures, name), getattr(before, name)
        if not now or not then:
            continue
        # How many times as good as before: for a time that is the other way round.
        times = now / then if name in RATES else then / now
        text = f"{name} {now:.4g}, was {then:.4g}"
        told.append(text)
        if times < 1 / (1 + tolerance):
            worse.append(text)
    if not told:
        raise UnableError("no figure that the baseline has")
    if worse:
        raise _unmet(f"worse by more than {tolerance:.0%}: {'; '.join(worse)}", busy_share)
    return f"{told[0]}; {told[1]}" if len(told) > 1 else told[0]


def _unmet(seen: str, busy_share: float) -> UnmetError | UnableError:
    busy = sender(busy_share)
    return UnableError(f"{seen}; {busy}") if busy else UnmetError(seen)
