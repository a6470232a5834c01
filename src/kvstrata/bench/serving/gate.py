"""What break-even did in each phase: how many of the chunks that were found it answered as misses, and why it could.

kvstrata.l2 answers what would be loaded later than it is computed as a miss (`min_load_gbps`, docs/l2.md). Here are its
counters before and after a phase, summed over the rounds. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from kvstrata.bench.serving import counters
from kvstrata.bench.serving.model import Phase

# The first is told from the beginning of a daemon that counts both, the second once it happened.
_UNASKED, _LATE = "break_even_unasked_total", "events_total{event=lookup_late}"
HEADS = (
    "configuration",
    "workload, pass",
    "computing, GB/s",
    "loading, GB/s",
    "chunks found",
    "answered as misses",
    "lookups let through to measure",
    "lookups that asked no store",
    "answered too late",
    "at the end",
)


@dataclass(frozen=True)
class Gate:
    """One configuration with stores of kvstrata.l2 under one workload in one pass."""

    configuration: str
    workload: str
    pass_: str
    min_load_gbps: float
    """The rate at which it is told that computing goes; 0: it never cuts."""
    load_gbps: float | None
    """What the stores delivered while they were busy, 10^9 bytes/s; the median of the rounds."""
    hits: int
    cut: int
    probes: int
    unasked: int | None
    """Lookups that ended in misses at once, for nothing of what the stores have could pass; None: not counted then."""
    late: int | None
    """Lookups that ended with what was known, for the stores took longer to answer than computing takes; or None."""
    cutting: bool
    """Whether it was cutting when the last round's phase ended."""

    @property
    def found(self) -> int:
        """Chunks that were there, answered as hits or not."""
        return self.hits + self.cut

    def cells(self) -> list[str]:
        """Return its texts, under HEADS."""
        off = not self.min_load_gbps
        share = f" ({self.cut / self.found:.0%})" if self.found else ""
        return [
            self.configuration,
            f"{self.workload}, {self.pass_}",
            "off" if off else f"{self.min_load_gbps:g}",
            "-" if self.load_gbps is None else f"{self.load_gbps:.2f}",
            str(self.found),
            "-" if off else f"{self.cut}{share}",
            "-" if off else str(self.probes),
            "-" if off or self.unasked is None else str(self.unasked),
            "-" if off or self.late is None else str(self.late),
            "-" if off else "cutting" if self.cutting else "open",
        ]


def gates(phases: Iterable[Phase], plan: Mapping[str, Any]) -> list[Gate]:
    """Return one for each configuration, workload and pass in which kvstrata.l2 counted, in the order of the phases."""
    told = {entry["name"]: float(entry.get("min_load_gbps") or 0.0) for entry in plan["configurations"]}
    found: dict[tuple[str, str, str], list[Phase]] = {}
    for phase in phases:
        if "l2" in phase.after:
            found.setdefault((phase.configuration, phase.workload, phase.pass_), []).append(phase)
    return [_gate(key, told.get(key[0], 0.0), rounds) for key, rounds in found.items()]


def _gate(key: tuple[str, str, str], told: float, rounds: list[Phase]) -> Gate:
    def counted(name: str) -> int:
        return round(sum(counters.difference(phase.before, phase.after, "l2", name) for phase in rounds))

    counts_lookups = all(_UNASKED in phase.after["l2"] for phase in rounds)
    rates = [rate for phase in rounds if (rate := counters.total(phase.after["l2"], "load_bytes_per_s"))]
    return Gate(
        *key,
        min_load_gbps=told,
        load_gbps=median(rates) / 1e9 if rates else None,
        hits=counted("events_total{event=lookup_hits}"),
        cut=counted("break_even_cut_chunks_total"),
        probes=counted("break_even_probes_total"),
        unasked=counted(_UNASKED) if counts_lookups else None,
        late=counted(_LATE) if counts_lookups else None,
        cutting=bool(counters.total(rounds[-1].after["l2"], "break_even")),
    )
