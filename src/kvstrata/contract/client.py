"""What sends the requests, and behaves as OpenAI's Python SDK does by default when one fails.

The SDK (openai 1.x and 2.x, `_base_client.py`): two retries after connection errors, timeouts and the statuses 408,
409, 429 and 5xx, with waits of 0.5 s, doubled each time, at most 8 s, shortened by up to a quarter by chance; or what
the server says in Retry-After, up to a minute. Nothing is sent again once a byte of the answer's body came.

Where a front has two routers this also does what the edge in front of them does (roles/edge, nginx.conf.j2).
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

from kvstrata.bench.serving.drivers.http import ClosedError, HttpError, Pool, Target
from kvstrata.bench.serving.drivers.own import SESSION_HEADER

PATH = "/v1/completions"
RETRIES = 2
_FIRST_WAIT_S, _LONGEST_WAIT_S, _JITTER = 0.5, 8.0, 0.25
_RETRIED = frozenset((408, 409, 429))
_LONGEST_RETRY_AFTER_S = 60.0
# roles/edge: edge_retry_after_s.
EDGE_RETRY_AFTER_S = 3.0


@dataclass(frozen=True)
class Front:
    """Where requests go, and how the one is told who answered."""

    url: str
    model: str
    worker_of: Callable[[Mapping[str, Any]], str | None]
    """The worker's name, from the answer's JSON; None where it does not say."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Added to every request's JSON."""
    backup: str | None = None
    """Another router's URL. As behind the edge, it is asked where the first cannot be reached, or hangs up before any
    byte of an answer came; where neither answers, the client is told 503 and when to try again."""
    unready_404: bool = False
    """Whether a router that knows no model yet answers 404, as Dynamo's does: the other one is asked then as well."""
    metrics: str | None = None
    """The URL of the router's own figures, where they tell whether it had the tokens of prompts."""
    session: bool = False
    """Whether requests tell their conversation in X-Session-ID. OpenAI's clients send nothing like it."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent with every request, an API key among them: not shown in reports."""
    tls: ssl.SSLContext | None = None
    """How to speak TLS with `url`, where it is https and this machine's own authorities are not the ones to trust."""
    server_name: str | None = None
    """Whom its certificate must name, where that is not the host in `url`."""


@dataclass(frozen=True)
class Request:
    """One request of a conversation."""

    conversation: str
    turn: int
    prompt: str
    tokens: int
    stream: bool
    hot: bool = False


@dataclass(frozen=True)
class Answer:
    """What became of a request. Times on the machine's monotonic clock."""

    request: Request
    sent: float
    """When it was first sent."""
    last_sent: float
    """When the attempt that was answered was sent."""
    first: float | None
    """When the first byte of a body came."""
    ended: float
    worker: str | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    attempts: int = 1
    why: tuple[str, ...] = ()
    """What was wrong with the attempts that failed."""
    error: str | None = None
    """What the user of an SDK would see as an exception."""

    @property
    def ok(self) -> bool:
        """Whether a whole answer came."""
        return self.error is None

    @property
    def ttft_s(self) -> float | None:
        """Seconds from the first attempt to the first byte of the answer."""
        return None if self.first is None else self.first - self.sent


def retried(status: int) -> bool:
    """Return whether the SDK sends again after this status."""
    return status in _RETRIED or status >= HTTPStatus.INTERNAL_SERVER_ERROR


def wait_s(retry: int, chance: float, retry_after_s: float | None = None) -> float:
    """Return the wait before a retry, counted from 0; `chance` in [0, 1); what the server asked for goes before."""
    if retry_after_s is not None and 0 < retry_after_s <= _LONGEST_RETRY_AFTER_S:
        return retry_after_s
    return min(_FIRST_WAIT_S * 2.0**retry, _LONGEST_WAIT_S) * (1 - _JITTER * chance)


class Client:
    """Sends requests to one front; close it."""

    def __init__(self, front: Front, timeout_s: float, seed: int = 0) -> None:
        """`timeout_s` is of one attempt; the seed is of the waits' jitter."""
        self._front, self._timeout_s = front, timeout_s
        target = Target.of(front.url)
        self._target = replace(target, tls=front.tls or target.tls, server_name=front.server_name)
        self._pools = [Pool(self._target)]
        if front.backup:
            self._pools.append(Pool(Target.of(front.backup)))
        self._chance = random.Random(seed)  # noqa: S311 - no secret

    async def send(self, request: Request) -> Answer:
        """Send until it is answered, or an SDK would raise."""
        body = self._body(request)
        headers = dict(self._front.headers) | ({SESSION_HEADER: request.conversation} if self._front.session else {})
        sent = time.monotonic()
        why: list[str] = []
        while True:
            last_sent, came = time.monotonic(), _Came()
            error: str | None
            try:
                async with asyncio.timeout(self._timeout_s):
                    status = await self._exchange(body, headers, came)
            except TimeoutError:
                error, again = f"no end within {self._timeout_s:g} s", came.first is None
            except (OSError, HttpError) as problem:
                error, again = f"connection: {problem or type(problem).__name__}", came.first is None
            else:
                error, again = self._wrong(status, came, request), retried(status)
            if error is None:
                return self._answer(request, sent, last_sent, came, why)
            why.append(error)
            if not again or len(why) > RETRIES:
                if len(why) == 1 and request.stream and came.first is not None:
                    error = f"cut: {error}"
                now = time.monotonic()
                return Answer(request, sent, last_sent, came.first, now, attempts=len(why), why=tuple(why), error=error)
            await asyncio.sleep(wait_s(len(why) - 1, self._chance.random(), came.retry_after_s))

    def close(self) -> None:
        """Close the connections."""
        for pool in self._pools:
            pool.close()

    def _body(self, request: Request) -> bytes:
        body: dict[str, Any] = {
            "model": self._front.model,
            "prompt": request.prompt,
            "max_tokens": request.tokens,
            "min_tokens": request.tokens,
            "ignore_eos": True,
            "temperature": 0,
            **self._front.more,
        }
        if request.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return json.dumps(body, separators=(",", ":")).encode()

    async def _exchange(self, body: bytes, headers: Mapping[str, str], came: _Came) -> int:
        """Ask one router; of two the other one too, where the edge would. Return the status."""
        if len(self._pools) == 1:
            return await self._ask(self._pools[0], body, headers, came)
        for pool in self._pools:
            came.parts.clear()
            try:
                status = await self._ask(pool, body, headers, came)
            except (OSError, ClosedError):
                continue
            if status != HTTPStatus.NOT_FOUND or not self._front.unready_404:
                return status
        if b"".join(came.parts):
            # Not that it knows no model yet: that has no body.
            return HTTPStatus.NOT_FOUND
        came.retry_after_s = EDGE_RETRY_AFTER_S
        return HTTPStatus.SERVICE_UNAVAILABLE

    async def _ask(self, pool: Pool, body: bytes, headers: Mapping[str, str], came: _Came) -> int:
        connection = await pool.take()

        def take(content: bytes) -> None:
            if came.first is None and connection.status == HTTPStatus.OK:
                came.first = time.monotonic()
            came.parts.append(content)

        try:
            await connection.post(self._target.prefix + PATH, headers, body, take)
        except BaseException:
            # Whatever it was, nothing may be read from this connection as if it were the next answer.
            connection.close()
            raise
        pool.give(connection)
        if connection.headers.get("retry-after", "").isdigit():
            came.retry_after_s = float(connection.headers["retry-after"])
        return connection.status

    def _wrong(self, status: int, came: _Came, request: Request) -> str | None:
        if status != HTTPStatus.OK:
            return f"HTTP {status}: {b''.join(came.parts)[:200].decode(errors='replace')}"
        return came.read(request.stream, request.tokens)

    def _answer(self, request: Request, sent: float, last_sent: float, came: _Came, why: list[str]) -> Answer:
        usage = came.usage
        return Answer(
            request,
            sent,
            last_sent,
            came.first,
            time.monotonic(),
            self._front.worker_of(came.said),
            usage.get("prompt_tokens") or 0,
            (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
            usage.get("completion_tokens") or 0,
            len(why) + 1,
            tuple(why),
        )


class _Came:
    """What came of one attempt."""

    def __init__(self) -> None:
        self.first: float | None = None
        self.parts: list[bytes] = []
        self.said: Mapping[str, Any] = {}
        self.usage: Mapping[str, Any] = {}
        self.retry_after_s: float | None = None

    def read(self, stream: bool, tokens: int) -> str | None:
        """Read a body that came with status 200; return what is wrong with it."""
        content = b"".join(self.parts)
        try:
            if stream:
                lines = [line[5:].strip() for line in content.splitlines() if line.startswith(b"data:")]
                if not lines or lines[-1] != b"[DONE]":
                    return f"a stream without its end: {content[-100:].decode(errors='replace')!r}"
                # Who answered is in the first piece, what it counted in the last.
                first, last = json.loads(lines[0]), json.loads(lines[-2])
            else:
                first = last = json.loads(content)
        except (ValueError, IndexError):
            return f"no JSON: {content[:100].decode(errors='replace')!r}"
        if error := first.get("error") or last.get("error"):
            return f"an error in the answer: {str(error)[:200]}"
        self.said, self.usage = first, last.get("usage") or {}
        if (got := self.usage.get("completion_tokens")) != tokens:
            return f"short: {got} of {tokens} tokens"
        return None
