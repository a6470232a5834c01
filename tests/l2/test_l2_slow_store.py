"""A store that is slower than computing must not slow serving: break-even over a real store behind a slow link.

The engine is a clock. It computes KV at a given rate, so what a prompt costs it is known; what is loaded instead takes
as long as it really takes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from kvstrata.bench.faults.proxy import Proxy, Rule
from kvstrata.bench.statistics import percentile
from kvstrata.l2 import breakeven
from tests.l2.scripted import pattern
from tests.l2.stores import Store
from tests.l2.test_l2_tier import MIB, Client

COMPUTE_GBPS = 0.01
"""What the engine makes of KV: far below a store on loopback, four times one behind SLOW_BYTES_PER_S."""
SLOW_BYTES_PER_S = 1.25e6
"""Of each of two connections."""
CHUNKS = 4
NAMES = [b"%d" % number for number in range(CHUNKS)]
COMPUTED_S = CHUNKS * MIB / (COMPUTE_GBPS * 1e9)


class Serving:
    """Prompts of four chunks, one after another; `ttft_s` has what each took."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.ttft_s: list[float] = []
        self.ahead_s = 0.0

    def monotonic(self) -> float:
        """The time, with what was computed meanwhile."""
        return time.monotonic() + self.ahead_s

    def serve(self, prompts: int) -> list[float]:
        """Serve so many; return their TTFT."""
        return [self._one() for _ in range(prompts)]

    def _one(self) -> float:
        began = time.monotonic()
        flags = self.client.lookup(*NAMES)
        hits = [name for name, hit in zip(NAMES, flags, strict=True) if hit]
        if hits:
            assert None not in self.client.load(dict.fromkeys(hits, MIB))
            self.client.tier.unlock(hits)
        loaded_s = time.monotonic() - began
        computed_s = COMPUTED_S * (CHUNKS - len(hits)) / CHUNKS
        self.ahead_s += computed_s
        self.ttft_s.append(loaded_s + computed_s)
        return self.ttft_s[-1]


@pytest.fixture
def slow(stores: list[Store]) -> Iterator[Proxy]:
    """A proxy before the first store, which holds the chunks."""
    proxy = Proxy(stores[0].port)
    yield proxy
    proxy.close()


def serving(slow: Proxy, gbps: float, monkeypatch: pytest.MonkeyPatch) -> Serving:
    place = SimpleNamespace(port=slow.port)
    client = Client([place], min_load_gbps=gbps, piece_bytes=256 << 10, load_connections=2)  # type: ignore[list-item]
    client.store(dict.fromkeys(NAMES, pattern(MIB)))
    made = Serving(client)
    monkeypatch.setattr(breakeven, "time", made)
    return made


def test_a_slow_store_costs_less_than_a_twentieth_and_is_used_again_when_it_is_fast(
    slow: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = serving(slow, COMPUTE_GBPS, monkeypatch)
    try:
        slow.bytes_per_s = SLOW_BYTES_PER_S
        # Nothing was measured yet: this one is loaded, and is late.
        assert made.serve(1)[0] > 2 * COMPUTED_S
        ttft = made.serve(400)
        assert sum(ttft) < 1.05 * 400 * COMPUTED_S
        assert percentile(ttft, 95) < 1.05 * COMPUTED_S
        report = made.client.tier.status()["break_even"]
        assert report["cutting"]
        assert report["unasked"] >= 0.9 * 400
        slow.bytes_per_s = 0.0
        for _ in range(40):
            if not made.client.tier.break_even.cutting:
                break
            made.ahead_s += 1000
            made.serve(25)
        assert not made.client.tier.break_even.cutting, "it was never tried again"
        assert 1 <= made.client.tier.status()["break_even"]["probes"] <= 40
    finally:
        made.client.tier.close()


def test_without_break_even_the_same_store_makes_serving_slower_than_computing(
    slow: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = serving(slow, 0.0, monkeypatch)
    try:
        slow.bytes_per_s = SLOW_BYTES_PER_S
        assert sum(made.serve(3)) > 2 * 3 * COMPUTED_S
        assert made.client.tier.status()["break_even"]["cut_chunks"] == 0
    finally:
        made.client.tier.close()


def test_a_store_that_says_nothing_is_waited_for_as_long_as_computing_takes(
    slow: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drive that writes all it can answers a lookup after seconds: 1.9 s of TTFT on an H200 (docs/gpu.md, gpu-8b)."""
    made = serving(slow, COMPUTE_GBPS, monkeypatch)
    try:
        # Its rate is known after this.
        made.serve(1)
        slow.replies = Rule(after=0, times=99, hold=True)
        began = time.monotonic()
        assert made.client.found(*NAMES) == [False] * CHUNKS
        assert COMPUTED_S <= time.monotonic() - began < made.client.config.lookup_deadline_s
        status = made.client.tier.status()
        assert status["counters"]["lookup_late"] == 1
        # And the others do not wait for it.
        began = time.monotonic()
        for _ in range(30):
            assert made.client.found(*NAMES) == [False] * CHUNKS
        assert time.monotonic() - began < 2 * COMPUTED_S
        status = made.client.tier.status()
        # It is not taken for dead: others may find it well, and it may have much to write.
        assert status["endpoints_up"] == 1
    finally:
        slow.release()
        made.client.tier.close()
