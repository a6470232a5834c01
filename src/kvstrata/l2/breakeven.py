"""Whether loading a prefix is worth it: cut what would arrive later than computing it takes.

Computing a prefix of x bytes of KV takes x / R seconds, where R (`min_load_gbps`, 1e9 bytes/s) is the rate at which
the engine makes KV: bytes per token * FLOPS * MFU / (2 * parameters). Loading it takes as long as the slowest of the
endpoints that hold it: (bytes already asked of it + its part of x) / its measured rate. The longest prefix that loads
no slower than it computes is answered as a hit, the rest as a miss.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

_MARGIN = 0.85
# A probe is answered late. So that neither throughput nor P95 of TTFT shows it: not more than one lookup in so many,
# and only a hundredth of the time.
_PROBE_LOOKUPS = 25
_PROBE_S = 2.0
_PROBE_TIMES = 100
# As much as all connections to a store ask for at once: less would not show what it can deliver.
_PROBE_BYTES = 32 << 20
# A store that is well answers within a few milliseconds; on a machine with little CPU it can take some more.
_LEAST_PATIENCE_S = 0.05


Parts = Sequence[Mapping[int, int]]
"""For each chunk of a prefix, in order, the bytes that it has on each endpoint."""


@dataclass(frozen=True)
class Source:
    """What is known of an endpoint: bytes per second (None before the first load), and bytes already asked for."""

    bytes_per_s: float | None
    outstanding: int


class BreakEven:
    """The decision, with hysteresis: once it cuts, loading must be 15 % faster than computing before it stops.

    A cut lookup loads nothing, so nothing would ever be measured again: now and then one lookup passes with as many
    chunks as a measurement needs. Of an endpoint that was never measured one lookup passes as a whole, and no other
    until it is, or for a while: after a start many prompts come at once, and all would wait for it, however slow it is.

    Where nothing could pass, no store need be asked what it has (`asks`): a drive that is busy answers that late too.
    One that did is not asked for a while (`late`).
    """

    def __init__(self, min_load_gbps: float) -> None:
        """Cut below `min_load_gbps`, 1e9 bytes/s; 0 never cuts."""
        self._compute = min_load_gbps * 1e9
        self._lock = threading.Lock()
        self._probe_from = 0.0
        self._lookups = 0
        """Lookups that were cut since the last probe."""
        self._tried_until: dict[int, float] = {}
        """For endpoints without a rate: until when no further lookup passes."""
        self.cutting = False
        self.cut_chunks = 0
        self.cut_bytes = 0
        self.probes = 0
        """Lookups that passed, while it cut, to measure."""
        self.trials = 0
        """Lookups that passed to give an endpoint its first rate."""
        self.unasked = 0
        """Lookups that ended without a store being asked."""
        self._quiet_until: dict[int, float] = {}
        """For endpoints that answered too late: until when they are not asked."""

    def asks(self, sources: Mapping[int, Source]) -> frozenset[int]:
        """Return the endpoints to ask what they have: none where a lookup could end in nothing but misses.

        Args:
            sources: the endpoints that may be asked, as `keep` takes them.
        """
        if not self._compute:
            return frozenset(sources)
        with self._lock:
            now = time.monotonic()
            found = {number: each for number, each in sources.items() if now >= self._quiet_until.get(number, 0.0)}
            if sources and not (found and self._may_pass(found, now)):
                self.unasked += 1
                return frozenset()
            return frozenset(found)

    def late(self, endpoints: Iterable[int]) -> None:
        """Note that these did not answer in time: each lookup would wait for them again."""
        with self._lock:
            until = time.monotonic() + _PROBE_S
            self._quiet_until |= dict.fromkeys(endpoints, until)
            self._probe_from, self._lookups = until, 0

    def _may_pass(self, sources: Mapping[int, Source], now: float) -> bool:
        """Whether `keep` may leave something of a prefix on these, at best spread over all of them, or measures."""
        if any(self._is_untried(endpoint, each, now) for endpoint, each in sources.items()):
            return True
        together = sum(each.bytes_per_s or 0.0 for each in sources.values())
        if together >= self._compute / _MARGIN or (together and not self.cutting):
            return True
        self._lookups += self.cutting
        return self.cutting and self._probe_is_due(now)

    def _is_untried(self, endpoint: int, source: Source, now: float) -> bool:
        """Whether an endpoint has no rate, and no other lookup was let through just now to give it one."""
        return source.bytes_per_s is None and now >= self._tried_until.get(endpoint, 0.0)

    def patience_s(self, size: int) -> float | None:
        """Return the seconds that computing so many bytes of KV takes: no answer is worth a longer wait. None: any."""
        return max(_LEAST_PATIENCE_S, size / self._compute) if self._compute and size else None

    def keep(self, rows: Sequence[Parts], sources: Mapping[int, Source]) -> list[int]:
        """Return how many chunks of each found prefix of a lookup to answer as hits.

        Args:
            rows: one for each KV rank and object group of a prompt. LMCache loads a chunk that every row has, so that
                what passes to measure passes in all of them.
            sources: the endpoints by the numbers in the rows.
        """
        if not self._compute or not any(rows):
            return [len(row) for row in rows]
        with self._lock:
            trial = self._trial(rows, sources)
            allowed = self._compute * (_MARGIN if self.cutting else 1.0)
            found = [_longest(row, sources, trial, self._compute, allowed) for row in rows]
            kept = [each.kept for each in found]
            if any(each.by_rate < len(row) for each, row in zip(found, rows)):
                probed = self._probe(rows, sources)
                kept = [max(count, min(probed, len(row))) for count, row in zip(kept, rows)]
                self.cutting = True
            elif all(count == len(row) for count, row in zip(kept, rows)):
                self.cutting = False
            for count, row in zip(kept, rows):
                self.cut_chunks += len(row) - count
                self.cut_bytes += sum(sum(part.values()) for part in row[count:])
            return kept

    def _trial(self, rows: Sequence[Parts], sources: Mapping[int, Source]) -> set[int]:
        """Return the endpoints without a rate that this lookup is let through to measure."""
        now = time.monotonic()
        named = {endpoint for row in rows for part in row for endpoint in part}
        trial = {endpoint for endpoint in named if self._is_untried(endpoint, sources[endpoint], now)}
        # LMCache may have all of it in DRAM and load nothing: the next one is let through when this is over.
        self._tried_until |= dict.fromkeys(trial, now + _PROBE_S)
        self.trials += bool(trial)
        return trial

    def _probe(self, rows: Sequence[Parts], sources: Mapping[int, Source]) -> int:
        """Return how many chunks to let through to measure; 0 while it is too early for that."""
        now = time.monotonic()
        if not self.cutting:
            # It was measured just now, or it would not cut.
            self._probe_from, self._lookups = now + _PROBE_S, 0
            return 0
        self._lookups += 1
        if not self._probe_is_due(now):
            return 0
        asked: dict[int, int] = {}
        count = 0
        while count < max(map(len, rows)) and sum(asked.values()) < _PROBE_BYTES:
            for part in (row[count] for row in rows if count < len(row)):
                for endpoint, size in part.items():
                    asked[endpoint] = asked.get(endpoint, 0) + size
            count += 1
        rates = {endpoint: sources[endpoint].bytes_per_s for endpoint in asked}
        seconds = max(size / rate if (rate := rates[endpoint]) else 0.0 for endpoint, size in asked.items())
        self._probe_from, self._lookups = now + max(_PROBE_S, _PROBE_TIMES * seconds), 0
        self.probes += 1
        return count

    def _probe_is_due(self, now: float) -> bool:
        return now >= self._probe_from and self._lookups >= _PROBE_LOOKUPS

    def report(self) -> dict[str, object]:
        """Return the state for report_status."""
        return {
            "min_load_gbps": self._compute / 1e9,
            "cutting": self.cutting,
            "cut_chunks": self.cut_chunks,
            "cut_bytes": self.cut_bytes,
            "probes": self.probes,
            "trials": self.trials,
            "unasked": self.unasked,
        }


@dataclass(frozen=True)
class _Kept:
    """Chunks of a prefix that may pass, and how many would if endpoints without a rate were fast."""

    kept: int
    by_rate: int


def _longest(parts: Parts, sources: Mapping[int, Source], trial: Set[int], compute: float, allowed: float) -> _Kept:
    """Return the largest number of chunks whose arrival is no later than `bytes / compute rate`.

    None passes behind one that is on an endpoint without a rate, but for those on trial.
    """
    asked: dict[int, int] = {}
    total = kept = by_rate = 0
    known = True
    # The margin shortens the time that loading may take, not the rate itself.
    slowest = compute * compute / allowed
    for number, part in enumerate(parts, 1):
        for endpoint, size in part.items():
            asked[endpoint] = asked.get(endpoint, sources[endpoint].outstanding) + size
            total += size
            known = known and (sources[endpoint].bytes_per_s is not None or endpoint in trial)
        arrival = max(
            (size / rate if (rate := sources[endpoint].bytes_per_s) else 0.0) for endpoint, size in asked.items()
        )
        if arrival <= total / slowest:
            by_rate = number
            kept = number if known else kept
    return _Kept(kept, by_rate)
