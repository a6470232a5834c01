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
_PROBE_S = 2.0


@dataclass(frozen=True)
class Source:
    """What is known of an endpoint: bytes per second (None before the first load), and bytes already asked for."""

    bytes_per_s: float | None
    outstanding: int


class BreakEven:
    """The decision, with hysteresis: once it cuts, loading must be 15 % faster than computing before it stops.

    A cut lookup loads nothing, so nothing would ever be measured again: every two seconds one lookup passes whole.
    """

    def __init__(self, min_load_gbps: float) -> None:
        """Cut below `min_load_gbps`, 1e9 bytes/s; 0 never cuts."""
        self._compute = min_load_gbps * 1e9
        self._lock = threading.Lock()
        self._probed = 0.0
        self.cutting = False
        self.cut_chunks = 0
        self.cut_bytes = 0
        self.probes = 0
        """Lookups that passed whole while it cut."""

    def keep(self, parts: Sequence[Mapping[int, int]], sources: Mapping[int, Source]) -> int:
        """Return how many chunks of a found prefix to answer as hits.

        Args:
            parts: for each chunk in prefix order, the bytes it has on each endpoint.
            sources: the endpoints by the same numbers.
        """
        if not self._compute or not parts:
            return len(parts)
        with self._lock:
            kept = self._longest(parts, sources, self._compute * (_MARGIN if self.cutting else 1.0))
            self.cutting = kept < len(parts)
            now = time.monotonic()
            if self.cutting and now - self._probed >= _PROBE_S:
                self._probed = now
                self.probes += 1
                return len(parts)
            self.cut_chunks += len(parts) - kept
            self.cut_bytes += sum(sum(part.values()) for part in parts[kept:])
            return kept

    def _longest(self, parts: Sequence[Mapping[int, int]], sources: Mapping[int, Source], allowed: float) -> int:
        """Return the largest number of chunks whose arrival is no later than `bytes / compute rate`."""
        asked: dict[int, int] = {}
        total = kept = 0
        # The margin shortens the time that loading may take, not the rate itself.
        compute = self._compute * self._compute / allowed
        for number, part in enumerate(parts, 1):
            for endpoint, size in part.items():
                asked[endpoint] = asked.get(endpoint, sources[endpoint].outstanding) + size
                total += size
            arrival = max(
                (size / rate if (rate := sources[endpoint].bytes_per_s) else 0.0) for endpoint, size in asked.items()
            )
            if arrival <= total / compute:
                kept = number
        return kept

    def report(self) -> dict[str, object]:
        """Return the state for report_status."""
        return {
            "min_load_gbps": self._compute / 1e9,
            "cutting": self.cutting,
            "cut_chunks": self.cut_chunks,
            "cut_bytes": self.cut_bytes,
            "probes": self.probes,
        }
