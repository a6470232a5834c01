"""HTTP/1.1 over the streams of a forwarded connection. Routes are functions of a request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import asyncssh


@dataclass(frozen=True)
class Request:
    """A request; `body` is its JSON, or empty."""

    path: str
    body: dict[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Status:
    """An answer other than 200."""

    code: int
    text: str = ""


type Answer = str | dict[str, Any] | Status | Iterator[str]
type Route = Callable[[Request], Answer]
type Talk = Callable[[asyncssh.SSHReader[bytes], asyncssh.SSHWriter[bytes]], Awaitable[None]]


def serve(routes: Mapping[str, Route], unknown: Callable[[str], None], pace_s: float = 0.0) -> Talk:
    """Answer by path; a path without a route is 404, and told to `unknown`. Events leave every `pace_s` seconds."""

    async def talk(reader: asyncssh.SSHReader[bytes], writer: asyncssh.SSHWriter[bytes]) -> None:
        while await _one(reader, writer, routes, unknown, pace_s):
            pass

    return talk


async def _one(
    reader: asyncssh.SSHReader[bytes],
    writer: asyncssh.SSHWriter[bytes],
    routes: Mapping[str, Route],
    unknown: Callable[[str], None],
    pace_s: float,
) -> bool:
    """Answer one request; whether another may come."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    size = int(headers.get("content-length", "0"))
    body = json.loads(await reader.readexactly(size)) if size else {}
    method, path, _ = first.split(" ")
    route = routes.get(path.partition("?")[0])
    if route is None:
        unknown(f"{method} {path} at {headers.get('host', '?')}")
    answer = (
        Status(404, f"a simulated service knows no {path}") if route is None else route(Request(path, body, headers))
    )
    if isinstance(answer, Iterator):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for event in answer:
            data = f"data: {event}\n\n".encode()
            writer.write(b"%x\r\n%s\r\n" % (len(data), data))
            await writer.drain()
            await asyncio.sleep(pace_s)
        writer.write(b"0\r\n\r\n")
    else:
        code = answer.code if isinstance(answer, Status) else 200
        text = answer.text if isinstance(answer, Status) else answer if isinstance(answer, str) else json.dumps(answer)
        data = text.encode()
        writer.write(b"HTTP/1.1 %d Said\r\ncontent-length: %d\r\n\r\n%s" % (code, len(data), data))
    await writer.drain()
    return headers.get("connection", "").lower() != "close"
