"""Engines with prefix caches of their own, and routers before them: one follows conversations, others do not."""

from __future__ import annotations

import itertools
import json
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from tests.verify.fakes.web import Code, WebServer

BLOCK = 16
USER_END = "\0"


class FakeEngine:
    """Counts a word as a token and keeps whole blocks of every prompt's beginning, as vLLM does."""

    def __init__(self) -> None:
        self.blocks: set[tuple[str, ...]] = set()
        self.count = {"requests": 0, "computed": 0, "local": 0, "external": 0}
        self.load = 0
        self.lock = threading.Lock()
        self.web = WebServer()
        self.web.routes = {
            "/tokenize": lambda body: {"count": len(body["prompt"].split())},
            "/metrics": self.metrics,
        }

    def serve(self, prompt: str) -> int:
        """Prefill a prompt; its number of tokens."""
        tokens = prompt.split()
        with self.lock:
            starts = [tuple(tokens[: end + BLOCK]) for end in range(0, len(tokens) - BLOCK, BLOCK)]
            hit = BLOCK * len(list(itertools.takewhile(self.blocks.__contains__, starts)))
            self.blocks |= set(starts)
            self.count["requests"] += 1
            self.count["local"] += hit
            self.count["computed"] += len(tokens) - hit
        return len(tokens)

    def metrics(self, body: dict[str, Any]) -> str:
        c, of = self.count, 'model_name="m",engine="0"'
        return f"""vllm:request_success_total{{{of},finished_reason="length"}} {c["requests"]}.0
vllm:prompt_tokens_by_source_total{{{of},source="local_compute"}} {c["computed"]}.0
vllm:prompt_tokens_by_source_total{{{of},source="local_cache_hit"}} {c["local"]}.0
vllm:prompt_tokens_by_source_total{{{of},source="external_kv_transfer"}} {c["external"]}.0
"""


type Policy = Callable[[str, Sequence[FakeEngine]], FakeEngine]


def by_prefix() -> Policy:
    """To the engine that was sent the longest beginning of the prompt; a new one to the next in turn."""
    sent: list[tuple[str, FakeEngine]] = []
    turn = itertools.count()

    def choose(prompt: str, engines: Sequence[FakeEngine]) -> FakeEngine:
        best = max(sent, key=lambda known: _common(known[0], prompt), default=None)
        follows = best is not None and _common(best[0], prompt) > len(prompt) / 3
        engine = best[1] if best is not None and follows else engines[next(turn) % len(engines)]
        sent.append((prompt, engine))
        return engine

    return choose


def never_where_it_was() -> Policy:
    """To another engine than the one that was sent the longest beginning of the prompt."""
    sent: list[tuple[str, FakeEngine]] = []

    def choose(prompt: str, engines: Sequence[FakeEngine]) -> FakeEngine:
        last = max(sent, key=lambda known: _common(known[0], prompt), default=(prompt, engines[-1]))[1]
        engine = next(engine for engine in engines if engine is not last)
        sent.append((prompt, engine))
        return engine

    return choose


def round_robin() -> Policy:
    """To one after the other, whatever the prompt."""
    turn = itertools.count()
    return lambda prompt, engines: engines[next(turn) % len(engines)]


def least_loaded(chance: random.Random) -> Policy:
    """To the one with the fewest requests under way, any of those."""
    return lambda prompt, engines: min(engines, key=lambda engine: (engine.load, chance.random()))


def by_user_or(other: Policy) -> Policy:
    """To the engine that served the same user before; otherwise as `other` says. The user is put before the prompt."""
    known: dict[str, FakeEngine] = {}

    def choose(prompt: str, engines: Sequence[FakeEngine]) -> FakeEngine:
        user, _, text = prompt.rpartition(USER_END)
        engine = known.get(user) or other(text, engines)
        if user:
            known[user] = engine
        return engine

    return choose


def always(place: int) -> Policy:
    """To the same one."""
    return lambda prompt, engines: engines[place]


def _common(one: str, other: str) -> int:
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


class FakeServing:
    """Engines and the router before them. `meanwhile` is called before each answer: other traffic, or a fault."""

    def __init__(self, engines: int, policy: Policy) -> None:
        self.engines = [FakeEngine() for _ in range(engines)]
        self.policy = policy
        self.meanwhile: Callable[[], object] = lambda: None
        self.failing = 0
        self.gap: Callable[[], object] = lambda: None
        self.router = WebServer()
        self.router.routes = {"/v1/chat/completions": self.chat, "/v1/completions": self.completions}
        self.asked: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._stack = ExitStack()

    def chat(self, body: dict[str, Any]) -> object:
        prompt = " ".join(message["content"] for message in body["messages"])
        tokens = self._serve(body, prompt)
        usage = {"prompt_tokens": tokens, "completion_tokens": body["max_tokens"]}
        return {"model": body["model"], "choices": [{}], "usage": usage}

    def completions(self, body: dict[str, Any]) -> object:
        with self._lock:
            if self.failing:
                self.failing -= 1
                return Code(503)
        return self._stream(body)

    def ports(self, addresses: Sequence[tuple[str, int]], router: tuple[str, int]) -> Mapping[tuple[str, int], int]:
        """Where the tunnels of a node lead: to the engines behind their addresses, and to the router behind its own."""
        engines = {address: engine.web.port for address, engine in zip(addresses, self.engines, strict=True)}
        return engines | {router: self.router.port}

    def _serve(self, body: dict[str, Any], prompt: str) -> int:
        with self._lock:
            self.asked.append(body)
            user = f"{body['user']}{USER_END}" if "user" in body else ""
            engine = self.policy(user + prompt, self.engines)
            engine.load += 1
        self.meanwhile()
        tokens = engine.serve(prompt)
        with self._lock:
            engine.load -= 1
        return tokens

    def _stream(self, body: dict[str, Any]) -> Iterator[str]:
        tokens = self._serve(body, body["prompt"])
        for _ in range(body["max_tokens"]):
            self.gap()
            yield json.dumps({"choices": [{"text": "x"}]})
        usage = {"prompt_tokens": tokens, "completion_tokens": body["max_tokens"]}
        yield json.dumps({"choices": [], "usage": usage})
        yield "[DONE]"

    def __enter__(self) -> FakeServing:
        for web in (self.router, *(engine.web for engine in self.engines)):
            self._stack.enter_context(web)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()
