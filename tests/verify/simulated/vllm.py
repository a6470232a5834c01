"""An engine as vLLM's API shows it, with its own prefix cache, and its node's LMCache behind it.

Tokens, answers and log probabilities follow from the prompt and the weights by arithmetic, so that equal weights give
equal answers on every node. The counters count what was served.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from kvstrata.cluster import Engine
from tests.verify.simulated.caches import Caches
from tests.verify.simulated.state import Machine
from tests.verify.simulated.web import Answer, Request, Route, Status

VERSION = "0.31.0"
# Characters to a token, and the size of the vocabulary.
TOKEN_CHARS = 4
VOCABULARY = 32000
# Shares of the most probable tokens; the rest is spread over all others.
SHARES = (0.5, 0.2, 0.1, 0.05, 0.02)
EVENT_TOKENS = 1


def tokenize(text: str) -> list[int]:
    """The same text always gives the same tokens, and a longer one only adds to them."""
    pieces = (text[at : at + TOKEN_CHARS] for at in range(0, len(text), TOKEN_CHARS))
    return [zlib.crc32(piece.encode()) % VOCABULARY for piece in pieces]


class FakeEngine:
    """One replica. `local` are the prefixes in HBM, by their digests."""

    def __init__(self, machine: Machine, engine: Engine, caches: Caches) -> None:
        self._machine, self._engine, self._caches = machine, engine, caches
        self.url = engine.url
        self.count: Counter[str] = Counter()
        self.caching = Caches.engine()
        self.down = False

    def restart(self) -> None:
        """Begin anew: an empty HBM, counters at zero."""
        self.count.clear()
        self.caching = Caches.engine()

    def routes(self) -> dict[str, Route]:
        """Its HTTP API."""
        return {
            "/health": lambda _: "",
            "/version": lambda _: {"version": VERSION},
            "/v1/models": lambda _: {"object": "list", "data": [self._model()]},
            "/tokenize": self._tokenize,
            "/v1/completions": self.completions,
            "/v1/chat/completions": self.chat,
            "/metrics": self._metrics,
        }

    def _model(self) -> dict[str, Any]:
        model = self._machine.cluster.model
        return {"id": model.name, "root": model.path, "max_model_len": model.max_model_len}

    def _tokenize(self, request: Request) -> Answer:
        tokens = tokenize(_text(request.body))
        return {"count": len(tokens), "tokens": tokens, "max_model_len": self._machine.cluster.model.max_model_len}

    def chat(self, request: Request) -> Answer:
        """A chat completion: the messages are the prompt."""
        prompt, wanted = tokenize(_text(request.body)), _wanted(request.body)
        self._prefill(prompt, wanted)
        if request.body.get("stream"):
            return _chat_events(request.body["model"], len(prompt), wanted, request.body)
        return {
            "model": request.body["model"],
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "x" * wanted}, "finish_reason": "length"}
            ],
            "usage": _usage(len(prompt), wanted),
        }

    def completions(self, request: Request) -> Answer:
        """A completion of a text or of token ids."""
        body = request.body
        if body.get("model") != self._machine.cluster.model.name:
            return Status(404, f"The model `{body.get('model')}` does not exist.")
        given = body["prompt"]
        prompt = tokenize(given) if isinstance(given, str) else [int(token) for token in given]
        wanted = _wanted(body)
        self._prefill(prompt, wanted)
        output = self._output(prompt, wanted)
        if body.get("stream"):
            return self._events(body, prompt, output)
        choice = self._choice(body, prompt, output)
        choice |= {"finish_reason": "length", "stop_reason": None}
        if body.get("prompt_logprobs") is not None:
            choice["prompt_logprobs"] = self._prompt_logprobs(prompt)
        return {
            "object": "text_completion",
            "model": body["model"],
            "choices": [choice],
            "usage": _usage(len(prompt), wanted),
        }

    def _events(self, body: dict[str, Any], prompt: Sequence[int], output: Sequence[int]) -> Iterator[str]:
        for at in range(0, len(output), EVENT_TOKENS):
            choice = self._choice(body, prompt if at == 0 else (), output[at : at + EVENT_TOKENS], at)
            last = at + EVENT_TOKENS >= len(output)
            choice["finish_reason"] = "length" if last else None
            event: dict[str, Any] = {"model": body["model"], "choices": [choice]}
            if (body.get("stream_options") or {}).get("continuous_usage_stats"):
                event["usage"] = _usage(len(prompt), at + EVENT_TOKENS)
            yield json.dumps(event)
        if (body.get("stream_options") or {}).get("include_usage"):
            yield json.dumps({"model": body["model"], "choices": [], "usage": _usage(len(prompt), len(output))})
        yield "[DONE]"

    def _choice(
        self, body: dict[str, Any], prompt: Sequence[int], output: Sequence[int], begin: int = 0
    ) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0, "text": "".join(f" {token}" for token in output)}
        if body.get("return_token_ids"):
            choice["token_ids"] = list(output)
            if prompt:
                choice["prompt_token_ids"] = list(prompt)
        if body.get("logprobs") is not None:
            tops = [self._top(token, body["logprobs"]) for token in output]
            choice["logprobs"] = {
                "tokens": [f"token_id:{token}" for token in output],
                "token_logprobs": [math.log(SHARES[0])] * len(output),
                "top_logprobs": tops,
                "text_offset": [begin] * len(output),
            }
        return choice

    def _top(self, token: int, asked: int) -> dict[str, float]:
        """The most probable tokens of a place where `token` was chosen."""
        tokens = [(token + step * 7919) % VOCABULARY for step in range(max(1, asked))]
        return {f"token_id:{one}": math.log(share) for one, share in zip(tokens, SHARES, strict=False)}

    def _prompt_logprobs(self, prompt: Sequence[int]) -> list[dict[str, Any] | None]:
        rows: list[dict[str, Any] | None] = [None]
        for token in prompt[1:]:
            # From 0.01 to 0.1: other weights give other ones, by whole numbers of nats.
            own = 0.01 * 10 ** (self._digest(token) % 1000 / 1000)
            row = {str(token): {"logprob": math.log(own), "rank": 9, "decoded_token": f" {token}"}}
            for rank, share in enumerate(SHARES[:4], start=1):
                other = str((token + rank * 7919) % VOCABULARY)
                row[other] = {"logprob": math.log(share), "rank": rank, "decoded_token": f" {other}"}
            rows.append(row)
        return rows

    def _output(self, prompt: Sequence[int], wanted: int) -> list[int]:
        """The greedy answer: of the whole prompt, and of the weights."""
        seed = zlib.crc32(json.dumps(list(prompt)).encode())
        return [self._digest(seed + place) % VOCABULARY for place in range(wanted)]

    def _digest(self, number: int) -> int:
        return zlib.crc32(f"{self._machine.state.weights} {number}".encode())

    def _prefill(self, prompt: Sequence[int], wanted: int) -> None:
        """Count where the tokens of a prompt come from, and keep them."""
        count, total = self.count, len(prompt)
        local = self.caching.hit(prompt)
        external = 0
        if self._machine.state.connector:
            count["queries"] += total - local
            external = self._caches.load(prompt, local)
            self._caches.store(prompt)
        self.caching.add(prompt)
        count["requests"] += 1
        count["hits"] += external
        count["local"] += local
        count["local_queries"] += total
        count["computed"] += total - local - external
        count["prompt"] += total
        count["generated"] += wanted

    def _metrics(self, _: Request) -> Answer:
        c, of = self.count, f'engine="0",model_name="{self._machine.cluster.model.name}"'
        lines = [
            f'vllm:request_success_total{{{of},finished_reason="length"}} {c["requests"]}.0',
            f'vllm:request_success_total{{{of},finished_reason="abort"}} 0.0',
            f'vllm:request_success_total{{{of},finished_reason="error"}} 0.0',
            f'vllm:prompt_tokens_by_source_total{{{of},source="local_compute"}} {c["computed"]}.0',
            f'vllm:prompt_tokens_by_source_total{{{of},source="local_cache_hit"}} {c["local"]}.0',
            f'vllm:prompt_tokens_by_source_total{{{of},source="external_kv_transfer"}} {c["hits"]}.0',
            f"vllm:prompt_tokens_total{{{of}}} {c['prompt']}.0",
            f"vllm:generation_tokens_total{{{of}}} {c['generated']}.0",
            f"vllm:prefix_cache_queries_total{{{of}}} {c['local_queries']}.0",
            f"vllm:prefix_cache_hits_total{{{of}}} {c['local']}.0",
            f"vllm:num_preemptions_total{{{of}}} 0.0",
            f"vllm:corrupted_requests_total{{{of}}} 0.0",
            f"vllm:num_requests_waiting{{{of}}} 0.0",
            f"vllm:num_requests_running{{{of}}} 0.0",
            f"vllm:kv_cache_usage_perc{{{of}}} 0.01",
        ]
        if self._machine.state.connector:
            lines += [
                f"vllm:external_prefix_cache_queries_total{{{of}}} {c['queries']}.0",
                f"vllm:external_prefix_cache_hits_total{{{of}}} {c['hits']}.0",
            ]
        return "\n".join(lines) + "\n"


def weights_digest(weights: int, name: str) -> str:
    """The sha256 of a file of the model with these weights."""
    of = weights if name.endswith(".safetensors") else 0
    return hashlib.sha256(f"{of} {name}".encode()).hexdigest()


def _wanted(body: dict[str, Any]) -> int:
    return int(body.get("max_tokens") or body.get("max_completion_tokens") or 16)


def _text(body: dict[str, Any]) -> str:
    if "messages" in body:
        return "".join(f"<{message['role']}>{message['content']}" for message in body["messages"])
    return str(body.get("prompt", ""))


def _usage(prompt: int, output: int) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}


def _chat_events(model: str, prompt: int, wanted: int, body: dict[str, Any]) -> Iterator[str]:
    for _ in range(wanted):
        yield json.dumps({"model": model, "choices": [{"index": 0, "delta": {"content": "x"}}]})
    if (body.get("stream_options") or {}).get("include_usage"):
        yield json.dumps({"model": model, "choices": [], "usage": _usage(prompt, wanted)})
    yield "[DONE]"
