"""Which replica served a request: from the counters of all engines, read before and after it."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from kvstrata.verify import wait
from kvstrata.verify.check import UnableError
from kvstrata.verify.http import Service, UnansweredError
from kvstrata.verify.prometheus import Samples

# Engines that are asked at the same time.
AT_ONCE = 32
# Counters are published a moment after the answer.
SETTLE_S = 3.0
POLL_S = 0.05


class MixedError(Exception):
    """Other requests were served at the same time: the counters do not tell who served this one."""


@dataclass(frozen=True)
class Reading:
    """One engine's counters, or the difference of two readings. All but `requests` is in prompt tokens."""

    requests: float
    computed: float
    local: float
    external: float

    @property
    def tokens(self) -> float:
        """All of them, wherever they came from."""
        return self.computed + self.local + self.external

    def __sub__(self, other: Reading) -> Reading:
        """What was counted since `other`."""
        return Reading(
            self.requests - other.requests,
            self.computed - other.computed,
            self.local - other.local,
            self.external - other.external,
        )


def reading(metrics: Samples) -> Reading:
    """The counters of a scrape."""
    source = "vllm:prompt_tokens_by_source_total"
    return Reading(
        requests=metrics.total("vllm:request_success_total"),
        computed=metrics.total(source, source="local_compute"),
        local=metrics.total(source, source="local_cache_hit"),
        external=metrics.total(source, source="external_kv_transfer"),
    )


def server(deltas: Mapping[str, Reading], tokens: int) -> str | None:
    """The one engine that served just one request, of `tokens` prompt tokens; None while no engine counted it yet.

    Raises MixedError when it cannot be told from other requests. Such on other engines do no harm.
    """
    mine = [name for name, delta in deltas.items() if delta.requests == 1 and delta.tokens == tokens]
    if len(mine) == 1:
        return mine[0]
    if mine or any(delta.requests > 1 or delta.requests < 0 for delta in deltas.values()):
        raise MixedError
    return None


class Replicas:
    """Every engine of the site, by name."""

    def __init__(self, services: Mapping[str, Service]) -> None:
        """Nothing is asked yet."""
        self._services = dict(services)

    def any(self) -> Service:
        """One of them, for what any engine can answer."""
        return next(iter(self._services.values()))

    def read(self) -> dict[str, Reading]:
        """Every engine's counters; UnableError names one that gives none."""

        def one(item: tuple[str, Service]) -> tuple[str, Reading]:
            name, service = item
            try:
                return name, reading(service.metrics())
            except UnansweredError as error:
                raise UnableError(f"{name} gives no metrics: {error}") from error

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return dict(pool.map(one, self._services.items()))

    def served(self, before: Mapping[str, Reading], tokens: int) -> tuple[str, Reading, dict[str, Reading]]:
        """Who served the request since `before`, what it counted, and the newest counters of all. Or MixedError."""

        def settled() -> tuple[str, Reading, dict[str, Reading]] | None:
            now = self.read()
            deltas = {name: now[name] - before[name] for name in now}
            name = server(deltas, tokens)
            return None if name is None else (name, deltas[name], now)

        found = wait.until(settled, SETTLE_S, POLL_S)
        if found is None:
            raise MixedError
        return found
