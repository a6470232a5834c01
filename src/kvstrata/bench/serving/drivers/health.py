"""How the load generator itself fares: the lag of its event loop, and its share of a core."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from kvstrata.bench.serving.model import ClientHealth

_EVERY_S = 0.01


class Probe:
    """Asks the event loop every 10 ms for a timer and notes how late it comes, from `async with` to its end."""

    def __init__(self) -> None:
        """Begin with nothing seen."""
        self.lags: list[float] = []
        self._task: asyncio.Task[None] | None = None
        self._wall = self._cpu = 0.0

    async def __aenter__(self) -> Probe:
        """Begin to probe."""
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        self._task = asyncio.create_task(self._probe())
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Stop."""
        self._wall, self._cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        if self._task:
            self._task.cancel()

    def health(self, late_s: Sequence[float]) -> ClientHealth:
        """Return what was seen, with how late requests were sent (in seconds; empty: not measured)."""
        return ClientHealth(
            lag_p50_s=quantile(self.lags, 0.5),
            lag_p99_s=quantile(self.lags, 0.99),
            lag_max_s=max(self.lags, default=None),
            late_p99_s=quantile(late_s, 0.99),
            cpu_share=self._cpu / self._wall if self._wall else None,
        )

    async def _probe(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + _EVERY_S
            await asyncio.sleep(_EVERY_S)
            self.lags.append(max(0.0, clock() - due))


def quantile(values: Sequence[float], share: float) -> float | None:
    """Return the value that this share of values does not exceed (nearest rank), None without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
