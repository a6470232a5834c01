"""One answer of /v1/completions, token by token, from its server-sent events."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from kvstrata.bench.serving.model import Endpoint, Turn

PATH = "/v1/completions"


def request_body(endpoint: Endpoint, prompt: Sequence[int] | str, turn: Turn, *, ids: bool) -> bytes:
    """Return the JSON of a request: greedy, exactly as many tokens as the turn asks for.

    ids: ask for the answer's token ids (vLLM then sends the prompt's back too, with the first token); otherwise for the
    tokens counted with every piece.
    """
    body: dict[str, Any] = {
        "model": endpoint.model,
        "prompt": prompt if isinstance(prompt, str) else list(prompt),
        "max_tokens": turn.output_tokens,
        "min_tokens": turn.output_tokens,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": not ids},
    }
    if ids:
        body["return_token_ids"] = True
    if isinstance(prompt, str):
        # The text is the whole prompt: no begin-of-text token in front of it.
        body["add_special_tokens"] = False
    return json.dumps(body, separators=(",", ":")).encode()


class Completion:
    """What has come of one answer. Feed it the body as it comes; times are the caller's clock."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.arrivals: list[tuple[float, int]] = []
        self.ids: list[int] = []
        self.text: list[str] = []
        self.prompt_tokens: int | None = None
        self.output_tokens = 0
        self.cached_tokens: int | None = None
        self.finish: str | None = None
        self.error: str | None = None
        self.done = False
        self.counted = True
        self._rest = b""

    def feed(self, content: bytes, at: float) -> None:
        """Take bytes of the body that came at that time."""
        *events, self._rest = (self._rest + content).replace(b"\r\n", b"\n").split(b"\n\n")
        for event in events:
            for line in event.split(b"\n"):
                if line.startswith(b"data:"):
                    self._data(line[5:].strip(), at)

    @property
    def gaps(self) -> tuple[float, ...]:
        """The gaps after each token: tokens of one piece came together, so all but its first have 0."""
        found: list[float] = []
        before: float | None = None
        for at, tokens in self.arrivals:
            if before is not None:
                found.append(at - before)
            found += [0.0] * (tokens - 1)
            before = at
        return tuple(found)

    def _data(self, data: bytes, at: float) -> None:
        if data == b"[DONE]":
            self.done = True
            return
        try:
            event = json.loads(data)
        except ValueError:
            self.error = f"an event that is no JSON: {data[:60]!r}"
            return
        if not isinstance(event, dict):
            self.error = f"an event that is no object: {data[:60]!r}"
            return
        if error := event.get("error"):
            self.error = str(error.get("message", error) if isinstance(error, dict) else error)[:300]
            return
        usage = event.get("usage") or {}
        for choice in event.get("choices", ())[:1]:
            self._piece(choice, usage, at)
        if not event.get("choices") and usage:
            if (told := usage.get("completion_tokens")) not in (None, self.output_tokens):
                # The server did not count pieces, and they were not one token each.
                self.counted, self.output_tokens = False, told
            self.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
        self.prompt_tokens = usage.get("prompt_tokens", self.prompt_tokens)

    def _piece(self, choice: dict[str, Any], usage: dict[str, Any], at: float) -> None:
        text, ids = choice.get("text") or "", choice.get("token_ids")
        self.finish = choice.get("finish_reason") or self.finish
        if ids is not None:
            tokens = len(ids)
            self.ids += ids
        elif "completion_tokens" in usage:
            tokens = usage["completion_tokens"] - self.output_tokens
        else:
            tokens = 1 if text else 0
        self.text.append(text)
        if tokens > 0:
            self.arrivals.append((at, tokens))
            self.output_tokens += tokens


def short_of(answer: Completion, turn: Turn) -> str | None:
    """Return what is missing from an answer that came without an error, None if it is whole."""
    if answer.output_tokens == turn.output_tokens and answer.done:
        return None
    how = f"finish_reason {answer.finish}" if answer.finish else "the stream ended"
    return f"short: {answer.output_tokens} of {turn.output_tokens} tokens, {how}"
