"""Which replica served which request: from the counters of all engines, read before and after."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from kvstrata.verify import prometheus, wait
from kvstrata.verify.check import UnableError
from kvstrata.verify.http import Service, UnansweredError

# Engines that are asked at the same time.
AT_ONCE = 32
# Counters are published a moment after the answer.
SETTLE_S = 6.0
POLL_S = 0.05


class MixedError(Exception):
    """Other requests were served at the same time: the counters do not tell who served these."""


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

    def times(self, share: float) -> Reading:
        """A share of it."""
        return Reading(self.requests * share, self.computed * share, self.local * share, self.external * share)

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


def servers(deltas: Mapping[str, Reading], tokens: Mapping[int, int]) -> dict[int, str] | None:
    """Who served which of several requests, `tokens` being the prompt tokens of each; None until all are counted.

    An engine's requests are those whose tokens add up to what it counted. Raises MixedError when that fits in no way,
    or in more than one.
    """
    counted = {name: delta for name, delta in deltas.items() if delta.requests != 0}
    if sum(delta.requests for delta in counted.values()) < len(tokens):
        return None
    ways = list(itertools.islice(_ways(list(counted.items()), dict(tokens)), 2))
    if len(ways) != 1:
        raise MixedError
    return ways[0]


def _ways(counted: Sequence[tuple[str, Reading]], left: Mapping[int, int]) -> Iterator[dict[int, str]]:
    """Every way to give each request to an engine, the engines one after the other."""
    if not counted:
        if not left:
            yield {}
        return
    (name, delta), *rest = counted
    for chosen in itertools.combinations(left, max(0, round(delta.requests))):
        if sum(left[request] for request in chosen) != delta.tokens:
            continue
        remaining = {request: tokens for request, tokens in left.items() if request not in chosen}
        for others in _ways(rest, remaining):
            yield dict.fromkeys(chosen, name) | others


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
                return name, reading(service.text("/metrics"))
            except UnansweredError as error:
                raise UnableError(f"{name} gives no metrics: {error}") from error

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return dict(pool.map(one, self._services.items()))

    def served(
        self, before: Mapping[str, Reading], tokens: Mapping[int, int]
    ) -> tuple[dict[int, str], dict[str, Reading]]:
        """Who served each of several requests since `before`, and the counters of all now. Or MixedError."""

        def settled() -> tuple[dict[int, str], dict[str, Reading]] | None:
            now = self.read()
            found = servers({name: now[name] - before[name] for name in now}, tokens)
            return None if found is None else (found, now)

        found = wait.until(settled, SETTLE_S, POLL_S)
        if found is None:
            raise MixedError
        return found
