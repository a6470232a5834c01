"""The vLLM replicas of a node: alive, the right model, sound answers, tied to the node's cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from kvstrata.cluster import Engine, LMCache
from kvstrata.verify import wait
from kvstrata.verify.check import Check, Json, NotCheckedError, Question, Status, UnableError, UnmetError
from kvstrata.verify.context import NodeContext
from kvstrata.verify.http import Service, UnansweredError
from kvstrata.verify.layers import endpoint
from kvstrata.verify.layers.engine import answers, counts, process

ASKED_TOKENS = 8
TOP = 5
# Counters are published a moment after the answer.
SETTLE_S = 5.0
POLL_S = 0.2
# Less than a hundred tokens: no chunk of it, so no cache takes part. The record of a model's answers (weights/) holds
# for this text: with another one it begins anew.
PROBE_PROMPT = "The quick brown fox jumps over the lazy dog. 7 * 8 = 56; water boils at 100 C.\n"


def checks(ctx: NodeContext) -> Iterator[Check]:
    """Every replica in turn; one that does not answer is told once, and nothing more is asked of it."""
    started = _Started(ctx)
    for engine in ctx.node.engines:
        yield from _Asked(ctx, engine, started).all()


@dataclass
class _Started:
    """The node's engine processes, read when first wanted: one command for all."""

    ctx: NodeContext

    @cached_property
    def processes(self) -> dict[str, process.Started] | str:
        """By unit, or why they cannot be known."""
        try:
            return process.read(self.ctx.shell, [engine.unit for engine in self.ctx.node.engines])
        except UnableError as unable:
            return str(unable)

    def of(self, unit: str) -> process.Started:
        """The process of a unit; UnableError when it cannot be known."""
        if isinstance(self.processes, str):
            raise UnableError(self.processes)
        if unit not in self.processes:
            raise UnableError(f"{unit} has no main process that can be read")
        return self.processes[unit]


@dataclass
class _Asked:
    ctx: NodeContext
    engine: Engine
    started: _Started
    _passed: set[str] = field(default_factory=set)

    @cached_property
    def service(self) -> Service:
        return self.ctx.engine(self.engine)

    @property
    def name(self) -> str:
        return f"{self.engine.unit} {self.engine.host}:{self.engine.port}"

    def all(self) -> Iterator[Check]:
        model, journal = self.ctx.cluster.model, self.ctx.journal(self.engine.unit)
        metrics = self.ctx.command(f"curl -s {self.engine.url}/metrics")
        yield self._ask("engine.health", "health", "/health answers 200", journal, self._health)
        yield self._ask(
            "engine.model",
            "model",
            f"{model.name} with {model.max_model_len} tokens",
            self.ctx.command(f"curl -s {self.engine.url}/v1/models"),
            self._model,
            "engine.health",
        )
        expected = f"exactly {ASKED_TOKENS} greedy tokens, usage adds up"
        yield self._ask("engine.tokens", "tokens", expected, journal, self._tokens, "engine.model")
        expected = "of prompt and output: there, finite, at most 0, the greedy token's the highest"
        yield self._ask("engine.logprobs", "log probabilities", expected, journal, self._logprobs, "engine.tokens")
        lmcache = self.ctx.node.lmcache
        if lmcache is not None:
            yield self._ask(
                "engine.connector",
                "connector",
                f"started with {process.CONNECTOR} to the node's LMCache, which it asks",
                self.ctx.command(f"systemctl status -l --no-pager {self.engine.unit}"),
                lambda data: self._connector(lmcache, data),
                "engine.health",
            )
        yield self._ask("engine.errors", "errors", "counted (no number of them fails)", metrics, self._errors)

    def _ask(
        self,
        check_id: str,
        what: str,
        expected: str,
        hint: str,
        probe: Callable[[dict[str, Json]], str],
        needed: str = "engine.health",
    ) -> Check:
        question: Question = self.ctx.question(check_id, f"{self.name} {what}", expected, hint)
        if check_id not in ("engine.health", needed) and needed not in self._passed:
            return question.skip(f"follows from {needed} on {self.ctx.node.name} ({self.name})")
        data: dict[str, Json] = {}
        check = question.ask(lambda: probe(data), data)
        if check.status is Status.PASS:
            self._passed.add(check_id)
        return check

    def _health(self, data: dict[str, Json]) -> str:
        seen = endpoint.health(self.service)
        data["version"] = version = str(self.service.json("/version").get("version", "unknown"))
        return f"{seen}, vLLM {version}"

    def _model(self, data: dict[str, Json]) -> str:
        wanted = self.ctx.cluster.model
        served = self.service.json("/v1/models").get("data", [])
        lengths = {str(model.get("id")): model.get("max_model_len") for model in served}
        seen = ", ".join(f"{name} with {length} tokens" for name, length in lengths.items()) or "no model"
        data["models"] = dict(lengths)
        if lengths.get(wanted.name) != wanted.max_model_len:
            raise UnmetError(seen)
        return seen

    def _tokens(self, data: dict[str, Json]) -> str:
        answer = self._complete(max_tokens=ASKED_TOKENS, ignore_eos=True, return_token_ids=True)
        seen = answers.tokens(answer, ASKED_TOKENS)
        data["completion_tokens"] = ASKED_TOKENS
        return seen

    def _logprobs(self, data: dict[str, Json]) -> str:
        if not self.engine.has_model:
            raise NotCheckedError("what it serves is not proven: a mocker has no model, and answers at random")
        try:
            answer = self._complete(
                max_tokens=2,
                ignore_eos=True,
                logprobs=TOP,
                prompt_logprobs=TOP,
                return_token_ids=True,
                # Names and not texts: different tokens may print alike.
                return_tokens_as_token_ids=True,
            )
        except UnansweredError as error:
            raise answers.refused(str(error)) from error
        return answers.logprobs(answer, data)

    def _complete(self, **options: object) -> Any:
        body = {"model": self.ctx.cluster.model.name, "prompt": PROBE_PROMPT, "temperature": 0, **options}
        return self.service.post("/v1/completions", body, self.ctx.timeout_s)

    def _connector(self, lmcache: LMCache, data: dict[str, Json]) -> str:
        if not self.engine.has_model:
            raise NotCheckedError("that KV is kept is not proven: a mocker has none, and no connector")
        started = self.started.of(self.engine.unit)
        told = process.connector(started, lmcache)

        def asked() -> float | None:
            return counts.asked_cache(self.service.metrics()) or None

        # The request for tokens asked the cache too, if there is a connector at all.
        tokens = wait.until(asked, SETTLE_S if "engine.tokens" in self._passed else 0, POLL_S)
        if tokens is None and "engine.tokens" in self._passed:
            since = " (its file was changed after it began)" if started.config_is_newer else ""
            raise UnmetError(f"told to use {told}, but never asked its cache for a token{since}")
        if tokens is None:
            raise NotCheckedError(f"told to use {told}; without an answer it is not proven that it asks its cache")
        data["asked_tokens"] = tokens
        return f"{told}; it asked for {tokens:.0f} tokens since its start"

    def _errors(self, data: dict[str, Json]) -> str:
        found = counts.read(self.service.metrics())
        data |= found.as_json()
        return str(found)
