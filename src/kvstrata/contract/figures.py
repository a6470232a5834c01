"""What a load under one arm measured: where turns landed, how work was spread, what caches saved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace

from kvstrata.bench.statistics import percentile
from kvstrata.contract.client import Answer
from kvstrata.contract.load import Held
from kvstrata.contract.residency import Batch, Residency, moments

# A prefix is gone where no worker holds half of it any more: caches drop the ends of prompts first.
_THERE = 0.5
# Where the best is at most one block in ten longer, both are as good.
_AS_GOOD = 0.9


@dataclass(frozen=True)
class Locality:
    """Where turns landed that follow another one of the same load."""

    followups: int
    resident: int
    """Of them, those whose previous turn's prompt was still in some worker's cache."""
    landed: int
    """Of the resident, those that went to a worker that held as much of it as any."""
    same_worker: int
    """Of all followups, those that went where the turn before went."""

    @property
    def evicted(self) -> int:
        """Followups for which no worker was the right one."""
        return self.followups - self.resident

    @property
    def share(self) -> float | None:
        """Of resident followups that landed where their prefix is; None without any."""
        return self.landed / self.resident if self.resident else None

    @property
    def same_share(self) -> float | None:
        """Of all followups that went where the turn before went; None without any."""
        return self.same_worker / self.followups if self.followups else None


@dataclass(frozen=True)
class Spread:
    """How requests and computed prompt tokens were spread over the workers that were there."""

    requests: Mapping[str, int]
    computed: Mapping[str, int]
    """Prompt tokens that were in no cache."""

    @property
    def requests_ratio(self) -> float:
        """The most of one worker, divided by the mean of all."""
        return ratio(list(self.requests.values()))

    @property
    def computed_ratio(self) -> float:
        """The same of computed prompt tokens."""
        return ratio(list(self.computed.values()))


@dataclass(frozen=True)
class Figures:
    """All of one load."""

    requests: int
    failed: int
    retried: int
    unknown: int
    """Answers that do not say which worker gave them."""
    per_s: float
    prompt_tokens: int
    cached_tokens: int
    ttft_p50_s: float | None
    ttft_p99_s: float | None
    locality: Locality | None
    """None where nobody listened to KV events."""
    spread: Spread
    hot: Spread | None
    """Of the requests with the shared prefix; None without such."""
    errors: tuple[str, ...]
    under_way: float | None = None
    """Requests that each worker had under way on average; None in runs that did not count them."""
    cores: float | None = None
    """CPUs that engines, router and client used on average; None where the engines are elsewhere."""
    waiting: float | None = None
    """For how long they were ready to run and had no CPU, against the time that answers took: what at most the machine
    added to an answer. None where the engines are elsewhere."""
    untold: float | None = None
    """Of the times that the router asked an engine for a prompt's tokens, the share that it got none in time. None
    where it asks for none, or that is not known."""

    @property
    def hit_rate(self) -> float:
        """Cached of all prompt tokens."""
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else 0.0


def in_own_time(found: Figures, slow_down: float) -> Figures:
    """Return figures of a load whose clock was slowed as they are by that clock."""

    def fast(seconds: float | None) -> float | None:
        return None if seconds is None else seconds / slow_down

    return replace(
        found,
        per_s=found.per_s * slow_down,
        ttft_p50_s=fast(found.ttft_p50_s),
        ttft_p99_s=fast(found.ttft_p99_s),
    )


def ratio(values: Sequence[float]) -> float:
    """Return the largest divided by the mean; 1 where there is nothing to spread."""
    total = sum(values)
    return max(values) * len(values) / total if total else 1.0


def figures(
    held: Held,
    workers: Sequence[str],
    batches: Sequence[Batch] | None,
    tokens: Callable[[Sequence[str]], list[list[int]]],
    block_size: int,
) -> Figures:
    """Return the figures of a load over those workers; `tokens` returns the tokens of texts."""
    answers = held.answers
    good = [answer for answer in answers if answer.ok]
    placed = [answer for answer in good if answer.worker is not None]
    first = [answer.ttft_s for answer in good if answer.ttft_s is not None and answer.request.stream]
    hot = [answer for answer in placed if answer.request.hot]
    return Figures(
        requests=len(answers),
        failed=len(answers) - len(good),
        retried=sum(answer.attempts > 1 for answer in good),
        unknown=len(good) - len(placed),
        per_s=len(answers) / held.seconds,
        prompt_tokens=sum(answer.prompt_tokens for answer in good),
        cached_tokens=sum(answer.cached_tokens for answer in good),
        ttft_p50_s=percentile(first, 50) if first else None,
        ttft_p99_s=percentile(first, 99) if first else None,
        locality=None if batches is None else locality(answers, workers, batches, tokens, block_size),
        spread=spread(placed, workers),
        hot=spread(hot, workers) if hot else None,
        errors=tuple(dict.fromkeys(answer.error for answer in answers if answer.error))[:5],
        under_way=held.answering_s / held.seconds / len(workers),
    )


def spread(answers: Sequence[Answer], workers: Sequence[str]) -> Spread:
    """Return how answers were spread; workers without one count."""
    requests, computed = Counter[str](), Counter[str]()
    for answer in answers:
        if answer.worker is not None:
            requests[answer.worker] += 1
            computed[answer.worker] += answer.prompt_tokens - answer.cached_tokens
    return Spread({name: requests[name] for name in workers}, {name: computed[name] for name in workers})


def locality(
    answers: Sequence[Answer],
    workers: Sequence[str],
    batches: Sequence[Batch],
    tokens: Callable[[Sequence[str]], list[list[int]]],
    block_size: int,
    judged: Container[tuple[str, int]] | None = None,
) -> Locality:
    """Return where followups landed, each judged by what was in caches when it was sent; only those `judged`."""
    pairs = [
        (before, after)
        for before, after in followups(answers)
        if judged is None or (after.request.conversation, after.request.turn) in judged
    ]
    prefixes = tokens([before.request.prompt for before, _ in pairs])
    residency = Residency(block_size)
    resident = landed = 0
    for index in moments(batches, [after.last_sent for _, after in pairs], residency):
        whole = len(prefixes[index]) // block_size
        blocks = residency.blocks(prefixes[index])
        held = {worker: residency.held(worker, blocks) for worker in workers}
        best = max(held.values(), default=0)
        if whole and best >= _THERE * whole:
            resident += 1
            landed += held.get(pairs[index][1].worker or "", 0) >= _AS_GOOD * best
    same = sum(before.worker == after.worker for before, after in pairs)
    return Locality(len(pairs), resident, landed, same)


def followups(answers: Sequence[Answer]) -> list[tuple[Answer, Answer]]:
    """Return each answered turn with the answered turn before it."""
    known = {(answer.request.conversation, answer.request.turn): answer for answer in answers}
    found = []
    for answer in answers:
        before = known.get((answer.request.conversation, answer.request.turn - 1))
        if answer.worker is not None and before is not None and before.worker is not None:
            found.append((before, answer))
    return found
