"""One greedy completion, streamed, with the time to its first token."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from kvstrata.verify.check import UnmetError
from kvstrata.verify.http import Service


@dataclass(frozen=True)
class Streamed:
    """What the engine answered. Times are in seconds from sending the request."""

    ttft_s: float
    total_s: float
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    prompt_tokens: int


def complete(service: Service, model: str, prompt: str, max_tokens: int, timeout_s: float) -> Streamed:
    """Ask for exactly `max_tokens` greedy tokens. Raises UnansweredError, or UnmetError for another number of them."""
    body = {
        "model": model,
        "prompt": prompt,
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        # Ids and not text: different tokens may print alike, or not at all.
        "return_token_ids": True,
        "logprobs": 0,
    }
    started = time.monotonic()
    first: float | None = None
    ids: list[int] = []
    logprobs: list[float] = []
    prompt_tokens = 0
    for event in service.events("/v1/completions", body, timeout_s):
        if "error" in event:
            raise UnmetError(f"the stream carried an error: {event['error']}")
        for choice in event.get("choices", []):
            new: list[int] = choice.get("token_ids") or []
            if new and first is None:
                first = time.monotonic()
            ids += new
            logprobs += _logprobs(choice)
        prompt_tokens = (event.get("usage") or {}).get("prompt_tokens", prompt_tokens)
    ended = time.monotonic()
    if first is None or len(ids) != max_tokens:
        raise UnmetError(f"{len(ids)} tokens came, asked for were {max_tokens}")
    return Streamed(first - started, ended - started, tuple(ids), tuple(logprobs), prompt_tokens)


def _logprobs(choice: dict[str, Any]) -> list[float]:
    given = (choice.get("logprobs") or {}).get("token_logprobs") or []
    return [float(value) for value in given if value is not None]
