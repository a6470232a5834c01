"""Whether tokens from a cache are the tokens that would have been computed: the same prompts, greedy, one at a time.

Prompts of the load (the first turns of some of its conversations) are sent again after it. In the reference, vLLM
alone, its prefix cache is emptied before each, so that every prompt is computed, twice over: what differs between those
two is the machine's own doing. In the others only the engine's cache is emptied, so that hits come from L1 and L2.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx

from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving.model import Endpoint, Json, Prompt, Workload

_EXACT = ("float32", "float")


@dataclass(frozen=True)
class Question:
    """One prompt of the sample; `name` is its conversation's."""

    name: str
    prompt: Prompt


@dataclass(frozen=True)
class Answer:
    """What a configuration answered. logprobs: of each token that was chosen."""

    configuration: str
    question: str
    prompt_tokens: int
    cached_tokens: int | None
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    seconds: float | None = None
    """From the request to the whole answer, while nothing else was asked; None in files from before this was kept."""


@dataclass(frozen=True)
class Verdict:
    """What one configuration's answers are against the reference's.

    diverged: questions whose tokens differ, with the position of the first that does. distance: greatest difference of
    a token's log probability before that, in nats. noise_*: the same between the two answers of the reference itself.
    """

    configuration: str
    questions: int
    cached_tokens: int
    diverged: tuple[tuple[str, int], ...]
    distance: float
    noise_diverged: int
    noise_distance: float
    exact: bool
    """Whether they must be identical: computed in fp32."""
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool | None:
        """Whether the outputs are right; None where nothing was proven."""
        if not self.questions or not self.cached_tokens:
            return None
        if not self.diverged:
            return True
        # With less than fp32 the order of sums differs between a computed and a loaded prefix, and tokens may too.
        return False if self.exact else None

    def text(self) -> str:
        """Return it in words."""
        same = self.questions - len(self.diverged)
        told = [f"{same} of {self.questions} answers identical, {self.cached_tokens} prompt tokens from a cache"]
        told.append(f"log probabilities within {self.distance:.1e}")
        if self.diverged:
            told.append(f"first difference at token {min(position for _, position in self.diverged)}")
        told.append(f"the uncached run against itself: {self.noise_diverged} differ, within {self.noise_distance:.1e}")
        return "; ".join([*told, *self.notes])

    def to_json(self) -> dict[str, Json]:
        """Return all of it."""
        return {
            "configuration": self.configuration,
            "ok": self.ok,
            "exact": self.exact,
            "questions": self.questions,
            "cached_tokens": self.cached_tokens,
            "diverged": [{"question": name, "position": position} for name, position in self.diverged],
            "distance": self.distance,
            "noise_diverged": self.noise_diverged,
            "noise_distance": self.noise_distance,
            "notes": list(self.notes),
        }


def questions(workload: Workload, count: int) -> tuple[Question, ...]:
    """Return the first prompts of `count` conversations, spread over the workload, each prompt once."""
    all_of_them = {
        tuple(first.prompt) if not isinstance(first.prompt, str) else first.prompt: conversation.name
        for conversation in workload.conversations
        for first in conversation.turns[:1]
    }
    prompts = list(all_of_them.items())
    count = min(count, len(prompts))
    # The last ones first of all: what came early may have been evicted since.
    step = len(prompts) / count if count else 1
    chosen = [prompts[len(prompts) - 1 - int(number * step)] for number in range(count)]
    return tuple(Question(name, prompt) for prompt, name in chosen)


def ask(
    endpoint: Endpoint, url: str, configuration: str, asked: Sequence[Question], tokens: int, before: Callable[[], None]
) -> list[Answer]:
    """Ask each question of the engine at `url`, alone; `before` is called before each.

    Raises:
        BenchError: the engine does not answer as it should.
    """
    answers = []
    with httpx.Client(timeout=endpoint.timeout_s, trust_env=False) as http:
        for question in asked:
            before()
            body: dict[str, Any] = {
                "model": endpoint.model,
                "prompt": question.prompt if isinstance(question.prompt, str) else list(question.prompt),
                "max_tokens": tokens,
                "temperature": 0,
                "ignore_eos": True,
                "return_token_ids": True,
                "logprobs": 0,
            }
            try:
                began = time.monotonic()
                response = http.post(f"{url}/v1/completions", json=body)
                response.raise_for_status()
                took = time.monotonic() - began
                answers.append(replace(_answer(configuration, question.name, response.json()), seconds=round(took, 6)))
            except (httpx.HTTPError, KeyError, IndexError, TypeError, ValueError) as error:
                raise BenchError(f"correctness sample: {url} and {question.name}: {error!r}") from error
    return answers


def judge(configuration: str, answers: Sequence[Answer], reference: Sequence[Sequence[Answer]], dtype: str) -> Verdict:
    """Compare the answers of a configuration with those of the reference, which was asked twice (`reference`)."""
    first, *others = [{answer.question: answer for answer in row} for row in reference]
    mine = {answer.question: answer for answer in answers}
    common = [name for name in mine if name in first]
    diverged, distance = _compare(mine, first, common)
    noise, noise_distance = _compare(others[0], first, list(first)) if others else ((), 0.0)
    cached = sum(mine[name].cached_tokens or 0 for name in common)
    computed = sum(first[name].cached_tokens or 0 for name in common)
    notes = []
    if not common:
        notes.append("NOT CHECKED: no question was answered by both")
    elif not cached:
        notes.append("NOT CHECKED: none of the sample's tokens came from a cache")
    if computed:
        notes.append(f"{computed} tokens of the reference came from a cache: it is no reference for them")
    return Verdict(
        configuration,
        len(common),
        cached,
        diverged,
        distance,
        len(noise),
        noise_distance,
        dtype in _EXACT,
        tuple(notes),
    )


def _answer(configuration: str, name: str, body: dict[str, Any]) -> Answer:
    choice, usage = body["choices"][0], body["usage"]
    return Answer(
        configuration,
        name,
        int(usage["prompt_tokens"]),
        (usage.get("prompt_tokens_details") or {}).get("cached_tokens"),
        tuple(int(token) for token in choice["token_ids"]),
        tuple(float(value) for value in choice["logprobs"]["token_logprobs"] if value is not None),
    )


def _compare(
    mine: dict[str, Answer], other: dict[str, Answer], names: Sequence[str]
) -> tuple[tuple[tuple[str, int], ...], float]:
    diverged, distance = [], 0.0
    for name in names:
        a, b = mine[name], other[name]
        same = next(
            (at for at, (x, y) in enumerate(zip(a.ids, b.ids, strict=False)) if x != y), min(len(a.ids), len(b.ids))
        )
        if len(a.ids) != len(b.ids) or same < len(a.ids):
            diverged.append((name, same))
        pairs = zip(a.logprobs[:same], b.logprobs[:same], strict=False)
        distance = max([distance, *(abs(x - y) for x, y in pairs)])
    return tuple(diverged), distance
