"""Which replica served a request: from the counters of all engines, read before and after it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from kvstrata.verify import prometheus, wait
from kvstrata.verify.check import UnableError
from kvstrata.verify.http import Service, UnansweredError

# Engines that are asked at the same time.
AT_ONCE = 32
# Counters are published a moment after the answer.
SETTLE_S = 3.0
EXPECTED_S = 0.5
# Up to so many engines all are asked each time.
FEW = 16
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

    def __add__(self, other: Reading) -> Reading:
        """Both together."""
        return Reading(
            self.requests + other.requests,
            self.computed + other.computed,
            self.local + other.local,
            self.external + other.external,
        )

    def __sub__(self, other: Reading) -> Reading:
        """What was counted since `other`."""
        return Reading(
            self.requests - other.requests,
            self.computed - other.computed,
            self.local - other.local,
            self.external - other.external,
        )


REQUESTS = "vllm:request_success_total"
TOKENS = "vllm:prompt_tokens_by_source_total"


def reading(text: str) -> Reading:
    """The counters of a scrape."""
    # A scrape has thousands of lines, and there may be hundreds of engines: two families are all that is read.
    metrics = prometheus.parse("\n".join(line for line in text.splitlines() if line.startswith((REQUESTS, TOKENS))))
    return Reading(
        requests=metrics.total(REQUESTS),
        computed=metrics.total(TOKENS, source="local_compute"),
        local=metrics.total(TOKENS, source="local_cache_hit"),
        external=metrics.total(TOKENS, source="external_kv_transfer"),
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

    def read(self, names: Iterable[str] | None = None) -> dict[str, Reading]:
        """The counters of these engines, or of all; UnableError names one that gives none."""

        def one(name: str) -> tuple[str, Reading]:
            try:
                return name, reading(self._services[name].text("/metrics"))
            except UnansweredError as error:
                raise UnableError(f"{name} gives no metrics: {error}") from error

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return dict(pool.map(one, self._services if names is None else names))

    def served(self, before: Mapping[str, Reading], tokens: int, expected: str | None) -> tuple[str, Reading]:
        """Who served the request since `before`, and what it counted of it. Or MixedError.

        Where there are many engines, the expected one is asked alone first.
        """
        if expected is not None and len(self._services) > FEW:
            found = wait.until(lambda: self._server(before, tokens, [expected]), EXPECTED_S, POLL_S)
            if found is not None:
                return found
        found = wait.until(lambda: self._server(before, tokens, None), SETTLE_S, POLL_S)
        if found is None:
            raise MixedError
        return found

    def _server(
        self, before: Mapping[str, Reading], tokens: int, names: Iterable[str] | None
    ) -> tuple[str, Reading] | None:
        deltas = {name: now - before[name] for name, now in self.read(names).items()}
        name = server(deltas, tokens)
        return None if name is None else (name, deltas[name])
