"""What a phase is worth: in a line for whoever waits, and what a reader must know of it."""

from __future__ import annotations

from collections.abc import Sequence

from kvstrata.bench.quiet import QUIET_SHARE
from kvstrata.bench.serving import counters
from kvstrata.bench.serving.model import ClientHealth, Counters, Phase, RequestSample
from kvstrata.bench.statistics import percentile


def shared(before: Counters, after: Counters, duration_s: float, cores: int) -> str | None:
    """Return a note where other programs used much of the processors during a phase; `machine` has its seconds."""
    if "machine" not in before or duration_s <= 0:
        return None

    def seconds(source: str, name: str = "cpu_s") -> float:
        return counters.difference(before, after, source, name)

    ours = seconds("machine", "own_cpu_s") + sum(seconds(s) for s in after if s.startswith("process:"))
    foreign = max(0.0, seconds("machine") - ours) / duration_s
    if foreign <= QUIET_SHARE * cores:
        return None
    return f"THE MACHINE WAS SHARED: others used {foreign:.1f} of {cores} cores"


def saturated(client: ClientHealth) -> str | None:
    """Return a note where the load generator was too slow for its own measurements."""
    if not client.saturated:
        return None
    lag = "unknown" if client.lag_p99_s is None else f"{client.lag_p99_s * 1000:.0f} ms"
    share = "unknown" if client.cpu_share is None else f"{client.cpu_share:.0%}"
    return f"THE CLIENT WAS SATURATED: its event loop was late by {lag} (P99), it used {share} of a core"


def summary(phase: Phase) -> str:
    """Return a line about a phase, for whoever waits."""
    answered = [sample for sample in phase.samples if sample.ok]
    first = [sample.ttft_s for sample in answered if sample.ttft_s is not None]
    tokens = sum(sample.output_tokens for sample in answered)
    told = [f"{len(answered)} of {len(phase.samples)} requests in {phase.duration_s:.1f} s"]
    if phase.duration_s > 0:
        told.append(f"{tokens / phase.duration_s:.1f} output tokens/s")
    if first:
        told.append(f"TTFT P50 {percentile(first, 50):.3f} s, P95 {percentile(first, 95):.3f} s")
    if (t := phase.tiers) is not None:
        told.append(f"prompt tokens: HBM {t.hbm}, L1 {t.l1}, L2 {t.l2}, computed {t.computed}")
    return "; ".join([*told, *phase.notes])


def failed(samples: Sequence[RequestSample], deadline_s: float) -> str | None:
    """Return what to say of requests that failed, None where all were answered."""
    errors = [sample.error for sample in samples if sample.error is not None]
    if not errors:
        return None
    late = sum(_is_late(error) for error in errors)
    why = f"{late} of them cut off after {deadline_s:.0f} s" if late else f"the first: {errors[0]}"
    return f"{len(errors)} of {len(samples)} requests failed, {why}"


def useless(phase: Phase) -> bool:
    """Whether a phase with failed requests shows that going on with this configuration is of no use."""
    errors = [sample.error for sample in phase.samples if sample.error is not None]
    return len(errors) == len(phase.samples) or any(map(_is_late, errors))


def _is_late(error: str) -> bool:
    # kvstrata.bench.serving.model.Driver.run: how a driver tells of its deadline.
    return error.startswith("deadline")
