"""The part of a closed loop in which it was full: all `active` conversations were under way. Pure.

A closed loop ends with fewer and fewer conversations, for as long as the last of them need, and an engine that idles
more and more meanwhile. A configuration that serves faster comes there sooner and idles like the others, which draws
ratios over the whole phase towards 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate

from kvstrata.bench.serving.model import Phase, RequestSample


def full_until_s(phase: Phase, active: int | None) -> float | None:
    """Return the seconds from the phase's begin until its last conversation began; before that, all were under way.

    A conversation begins when another one ends, so until then none was missing: those that think between two turns are
    under way too. None where no conversation waited for another to end, so that none of them marks that time: in open
    loop (`active` is None), with no more conversations than `active`, and where all began at once since they failed.
    """
    begins = [sample.started_s for sample in phase.samples if sample.turn == 0]
    if active is None or len(begins) <= active:
        return None
    # Where the deadline kept conversations from beginning, the loop was full to the end: what was not sent counts as
    # started at the end of the phase, or (AIPerf) at the deadline, which can be later.
    until = min(max(begins), phase.duration_s)
    return until if until > 0 else None


def output_tokens_until(samples: Iterable[RequestSample], until_s: float) -> float:
    """Return the output tokens that came before `until_s`, in seconds since the begin, also of answers cut by it."""
    return sum(_before(sample, until_s) for sample in samples)


def _before(sample: RequestSample, until_s: float) -> float:
    if sample.ttft_s is None:
        return 0.0
    arrivals = list(accumulate(sample.itl_s, initial=sample.scheduled_s + sample.ttft_s))
    # Some drivers see pieces of several tokens as one arrival: each then stands for its share of the answer.
    return sample.output_tokens * sum(at < until_s for at in arrivals) / len(arrivals)
