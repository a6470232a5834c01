"""Whether loading a prefix is worth it: cut what would arrive later than computing it takes.

Computing a prefix of x bytes of KV takes x / R seconds, where R (`min_load_gbps`, 1e9 bytes/s) is the rate at which
the engine makes KV: bytes per token * FLOPS * MFU / (2 * parameters). Loading it takes as long as the slowest of the
endpoints that hold it: (bytes already asked of it + its part of x) / its measured rate. The longest prefix that loads
no slower than it computes is answered as a hit, the rest as a miss.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_MARGIN = 0.85
# A probe is answered late. So that neither throughput nor P95 of TTFT shows it: not more than one lookup in so many,
# and only a hundredth of the time.
_PROBE_LOOKUPS = 25
_PROBE_S = 2.0
_PROBE_TIMES = 100
# As much as all connections to a store ask for at once: less would not show what it can deliver.
_PROBE_BYTES = 32 << 20


@dataclass(frozen=True)
class Source:
    """What is known of an endpoint: bytes per second (None before the first load), and bytes already asked for."""

    bytes_per_s: float | None
    outstanding: int


class BreakEven:
    """The decision, with hysteresis: once it cuts, loading must be 15 % faster than computing before it stops.

    A cut lookup loads nothing, so nothing would ever be measured again: now and then one lookup passes with as many
    chunks as a measurement needs. Of an endpoint that was never measured as many pass, and no more until it is: after a
    start many prompts arrive at once, and all would wait for it, however slow it is.
    """

    def __init__(self, min_load_gbps: float) -> None:
        """Cut below `min_load_gbps`, 1e9 bytes/s; 0 never cuts."""
        self._compute = min_load_gbps * 1e9
        self._lock = threading.Lock()
        self._probe_from = 0.0
        self._lookups = 0
        """Lookups that were cut since the last probe."""
        self._tried: dict[int, tuple[float, int]] = {}
        """For each endpoint without a rate until when no more of it passes, and the bytes that did."""
        self.cutting = False
        self.cut_chunks = 0
        self.cut_bytes = 0
        self.probes = 0
        """Lookups that passed, while it cut, to measure."""

    def keep(self, parts: Sequence[Mapping[int, int]], sources: Mapping[int, Source]) -> int:
        """Return how many chunks of a found prefix to answer as hits.

        Args:
            parts: for each chunk in prefix order, the bytes it has on each endpoint.
            sources: the endpoints by the same numbers.
        """
        if not self._compute or not parts:
            return len(parts)
        with self._lock:
            kept, measured = self._longest(parts, sources, self._compute * (_MARGIN if self.cutting else 1.0))
            self._try(parts[:kept], sources)
            if kept < len(parts) and measured:
                kept = max(kept, self._probe(parts, sources))
                self.cutting = True
            elif kept == len(parts):
                self.cutting = False
            self.cut_chunks += len(parts) - kept
            self.cut_bytes += sum(sum(part.values()) for part in parts[kept:])
            return kept

    def _probe(self, parts: Sequence[Mapping[int, int]], sources: Mapping[int, Source]) -> int:
        """Return how many chunks to let through to measure; 0 while it is too early for that."""
        now = time.monotonic()
        if not self.cutting:
            # It was measured just now, or it would not cut.
            self._probe_from, self._lookups = now + _PROBE_S, 0
            return 0
        self._lookups += 1
        if now < self._probe_from or self._lookups < _PROBE_LOOKUPS:
            return 0
        asked: dict[int, int] = {}
        count = 0
        for part in parts:
            if sum(asked.values()) >= _PROBE_BYTES:
                break
            count += 1
            for endpoint, size in part.items():
                asked[endpoint] = asked.get(endpoint, 0) + size
        rates = {endpoint: sources[endpoint].bytes_per_s for endpoint in asked}
        seconds = max(size / rate if (rate := rates[endpoint]) else 0.0 for endpoint, size in asked.items())
        self._probe_from, self._lookups = now + max(_PROBE_S, _PROBE_TIMES * seconds), 0
        self.probes += 1
        return count

    def _try(self, parts: Sequence[Mapping[int, int]], sources: Mapping[int, Source]) -> None:
        """Count what passes of endpoints without a rate. It counts for a while: LMCache may have it in DRAM already."""
        for part in parts:
            for endpoint, size in part.items():
                if sources[endpoint].bytes_per_s is None:
                    until, passed = self._trial(endpoint)
                    self._tried[endpoint] = until, passed + size

    def _trial(self, endpoint: int) -> tuple[float, int]:
        now = time.monotonic()
        until, passed = self._tried.get(endpoint, (0.0, 0))
        return (until, passed) if now < until else (now + _PROBE_S, 0)

    def _longest(
        self, parts: Sequence[Mapping[int, int]], sources: Mapping[int, Source], allowed: float
    ) -> tuple[int, bool]:
        """Return the largest number of chunks whose arrival is no later than `bytes / compute rate`.

        And whether that is known of those behind: False where an endpoint's rate is waited for.
        """
        asked: dict[int, int] = {}
        trial: dict[int, int] = {}
        total = kept = 0
        # The margin shortens the time that loading may take, not the rate itself.
        compute = self._compute * self._compute / allowed
        for number, part in enumerate(parts, 1):
            for endpoint, size in part.items():
                asked[endpoint] = asked.get(endpoint, sources[endpoint].outstanding) + size
                total += size
                if sources[endpoint].bytes_per_s is None:
                    if self._trial(endpoint)[1] + trial.get(endpoint, 0) >= _PROBE_BYTES:
                        return kept, False
                    trial[endpoint] = trial.get(endpoint, 0) + size
            arrival = max(
                (size / rate if (rate := sources[endpoint].bytes_per_s) else 0.0) for endpoint, size in asked.items()
            )
            if arrival <= total / compute:
                kept = number
        return kept, True

    def report(self) -> dict[str, object]:
        """Return the state for report_status."""
        return {
            "min_load_gbps": self._compute / 1e9,
            "cutting": self.cutting,
            "cut_chunks": self.cut_chunks,
            "cut_bytes": self.cut_bytes,
            "probes": self.probes,
        }
