"""What the requests say about a fault. Pure: samples in, a verdict out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvstrata.bench.statistics import percentile
from kvstrata.verify.check import Json, UnableError, UnmetError
from kvstrata.verify.faults.plan import Fault
from kvstrata.verify.faults.requests import Sample

# Share of the requests that may be lost on the way to the site before nothing can be told.
MOST_NOT_CARRIED = 0.2


@dataclass(frozen=True)
class Window:
    """When a fault was made, when it was in force, and when everything was well again; seconds of the stream."""

    began_s: float
    in_force_s: float
    ended_s: float

    def meets(self, sample: Sample) -> bool:
        """Whether any part of the request falls into it."""
        return sample.ended_s >= self.began_s and sample.started_s <= self.ended_s


def times(samples: Sequence[Sample]) -> dict[str, Json]:
    """P50, P95 and the longest, in seconds, of the requests that were answered."""
    waited = [sample.seconds for sample in samples if sample.answered]
    if not waited:
        return {}
    return {
        "p50_s": round(percentile(waited, 50), 3),
        "p95_s": round(percentile(waited, 95), 3),
        "max_s": round(max(waited), 3),
    }


def undisturbed(samples: Sequence[Sample], data: dict[str, Json]) -> str:
    """What was seen of requests that met no fault; UnmetError when any sending failed."""
    carried, beside = _carried(samples, data)
    data |= {"requests": len(carried), **times(carried)}
    failed = [sample for sample in carried if sample.failed]
    if failed:
        raise UnmetError(f"{len(failed)} of {len(carried)} requests failed at first: {_said(failed)}{beside}")
    return f"{len(carried)} requests answered{_times_said(carried)}{beside}"


def verdict(fault: Fault, samples: Sequence[Sample], window: Window, data: dict[str, Json]) -> str:
    """What was seen of the requests that met the fault; UnmetError when they should have fared better.

    UnableError when too few of them reached the site to tell.
    """
    met, beside = _carried([sample for sample in samples if window.meets(sample)], data)
    resent = [sample for sample in met if sample.failed]
    lost = [sample for sample in met if not sample.answered]
    data |= {"requests": len(met), "answered": len(met) - len(lost), "sent_again": len(resent), **times(met)}
    data |= {"fault_s": round(window.ended_s - window.began_s, 3)}
    seen = f"{len(met) - len(lost)} of {len(met)} requests answered{_times_said(met)}{beside}"
    if not met:
        raise UnmetError("no request ended meanwhile")
    if lost:
        raise UnmetError(f"{seen}; given up: {_said(lost)}")
    if resent and not fault.loses_in_flight:
        raise UnmetError(f"{seen}; {len(resent)} only when sent again: {_said(resent)}")
    late = [sample for sample in resent if sample.started_s > window.in_force_s]
    if late:
        raise UnmetError(f"{seen}; {len(late)} failed at first though they were sent after it was gone: {_said(late)}")
    if resent:
        seen += f"; {len(resent)} under way on it failed, and were answered when sent again"
    return seen


def _carried(samples: Sequence[Sample], data: dict[str, Json]) -> tuple[list[Sample], str]:
    """The requests that reached the site, and words for those that did not; UnableError where those are many."""
    carried = [sample for sample in samples if sample.carried]
    missing = len(samples) - len(carried)
    data["not_carried"] = missing
    if missing > MOST_NOT_CARRIED * len(samples):
        said = samples[[sample.carried for sample in samples].index(False)].attempts[-1].error
        raise UnableError(f"{missing} of {len(samples)} requests did not get to the site: {said}")
    return carried, f"; {missing} did not get to the site" if missing else ""


def _times_said(samples: Sequence[Sample]) -> str:
    waited = [sample.seconds for sample in samples if sample.answered]
    if not waited:
        return ""
    p50, p95 = percentile(waited, 50), percentile(waited, 95)
    return f", P50 {p50:.1f} s, P95 {p95:.1f} s, longest {max(waited):.1f} s"


def _said(samples: Sequence[Sample]) -> str:
    """The different errors with how often each came, the most frequent first."""
    counts: dict[str, int] = {}
    for sample in samples:
        for attempt in sample.attempts:
            if attempt.failed and attempt.error is not None:
                counts[attempt.error] = counts.get(attempt.error, 0) + 1
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    return "; ".join(f"{error} ({count} times)" if count > 1 else error for error, count in ranked[:3])
