"""HTTP/1.1 POST with a streamed answer, on asyncio's protocols alone.

General clients take several times as long for each piece of an answer (docs/workloads.md has figures), and a client's
delays are counted as the engine's. This one reads what a load generator needs: bodies by Content-Length, chunked, or
until the end; no redirects, no compression, no proxies. A piece is handed on in the very call in which it comes.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

_HEAD_LIMIT = 1 << 16


class HttpError(Exception):
    """An answer that is no HTTP, or ends too early."""


class ClosedError(HttpError):
    """The connection was closed before anything of an answer came."""


@dataclass(frozen=True)
class Target:
    """A server, and the path in front of the API's."""

    host: str
    port: int
    prefix: str
    tls: ssl.SSLContext | None
    server_name: str | None = None
    """Whom its certificate must name, where that is not `host`: at the other end of a tunnel."""

    @classmethod
    def of(cls, url: str) -> Target:
        """Return the target of a base URL, such as http://host:8000.

        Raises:
            ValueError: no http or https URL with a host.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"given {url!r}; allowed: http://HOST:PORT or https://HOST:PORT")
        tls = ssl.create_default_context() if parts.scheme == "https" else None
        port = parts.port or (443 if tls else 80)
        return cls(parts.hostname, port, parts.path.rstrip("/"), tls)


class Connection(asyncio.Protocol):
    """One connection, for one request at a time."""

    def __init__(self, host: str) -> None:
        """`host` is what the requests' Host says; `open` makes connections."""
        self.used = False
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self._host = host
        self._transport: asyncio.Transport | None = None
        self._head = b""
        self._body: Framing | None = None
        self._sink: Callable[[bytes], None] | None = None
        self._end: asyncio.Future[None] | None = None
        self._keeps = True
        self._again = True

    @classmethod
    async def open(cls, target: Target) -> Connection:
        """Connect.

        Raises:
            OSError: it cannot be reached.
        """
        host = f"{target.host}:{target.port}"
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: cls(host),
            target.host,
            target.port,
            ssl=target.tls,
            server_hostname=target.server_name if target.tls else None,
        )
        return connection

    @property
    def idle(self) -> bool:
        """Whether it can take another request: the last answer was read, and the server has not hung up."""
        return self._again and self._transport is not None and not self._transport.is_closing()

    def close(self) -> None:
        """Drop it, whatever is under way."""
        self._again = False
        if self._transport:
            self._transport.close()

    async def post(self, path: str, headers: Mapping[str, str], body: bytes, sink: Callable[[bytes], None]) -> None:
        """Send a request and wait for the end of its answer.

        `status` and `headers`, with names in small letters, are set before `sink` is called, with the body's bytes as
        they come.

        Raises:
            ClosedError: hung up before any byte; on a connection that was `used`, another one may work.
            HttpError: anything else that is no whole answer.
        """
        if not self.idle or self._transport is None:
            raise ClosedError("the server hung up before it answered")
        self._again, self.status, self._head, self._body, self._sink = False, 0, b"", None, sink
        self.headers = {}
        self._end = asyncio.get_running_loop().create_future()
        fields = {"Host": self._host, "Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
        head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items()) + "\r\n"
        self._transport.write(head.encode("latin-1") + body)
        await self._end
        self._again, self.used = self._keeps, True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (asyncio calls this)."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what create_connection gives
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take what came (asyncio calls this)."""
        if self._end is None or self._end.done() or self._sink is None:
            # Nothing was asked for: this is no server to send another request to.
            self.close()
            return
        try:
            if self._body is None:
                self._head += data
                head, found, data = self._head.partition(b"\r\n\r\n")
                if not found:
                    if len(self._head) > _HEAD_LIMIT:
                        raise HttpError(f"the head of the answer is longer than {_HEAD_LIMIT} bytes")
                    return
                self._body = self._framing(head)
            if content := self._body.feed(data):
                self._sink(content)
        except Exception as error:
            self._fail(error)
            return
        if self._body.ended:
            self._end.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        """End what is under way (asyncio calls this)."""
        if self._end is None or self._end.done():
            return
        if isinstance(self._body, UntilClosed) and error is None:
            self._end.set_result(None)
        elif self._body is None and not self._head:
            self._fail(ClosedError(f"the server hung up before it answered{f' ({error})' if error else ''}"))
        else:
            self._fail(HttpError("the server hung up in the middle of its answer"))

    def _framing(self, raw: bytes) -> Framing:
        first, *lines = raw.decode("latin-1").split("\r\n")
        version, _, rest = first.partition(" ")
        if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
            raise HttpError(f"no HTTP answer: {first[:60]!r}")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self.status, self.headers = int(rest[:3]), headers
        self._keeps = headers.get("connection", "").lower() != "close"
        if "chunked" in headers.get("transfer-encoding", "").lower():
            return Chunks()
        if headers.get("content-length", "").isdigit():
            return Counted(int(headers["content-length"]))
        self._keeps = False
        return UntilClosed()

    def _fail(self, error: Exception) -> None:
        self.close()
        if self._end and not self._end.done():
            self._end.set_exception(error)


class Framing(Protocol):
    """How a body is framed: feed it what comes, and get what belongs to the body."""

    ended: bool

    def feed(self, content: bytes) -> bytes:
        """Return the body's bytes."""


class Counted:
    """A body of a known length."""

    def __init__(self, length: int) -> None:
        """Begin before its first byte."""
        self._left = length
        self.ended = length == 0

    def feed(self, content: bytes) -> bytes:
        """Return the body's bytes."""
        self._left -= len(content)
        self.ended = self._left <= 0
        return content


class UntilClosed:
    """A body that ends with the connection."""

    ended = False

    def feed(self, content: bytes) -> bytes:
        """Return the body's bytes."""
        return content


class Chunks:
    """A chunked body (RFC 9112, section 7.1); trailers are dropped."""

    def __init__(self) -> None:
        """Begin before the first chunk."""
        self.ended = False
        self._rest = b""
        self._last = False

    def feed(self, content: bytes) -> bytes:
        """Return the body's bytes in whole chunks; a chunk that is not all there waits.

        Raises:
            HttpError: no chunked framing.
        """
        rest, found, at = self._rest + content, [], 0
        while not self.ended and (line := rest.find(b"\r\n", at)) >= 0:
            if self._last:
                self.ended = line == at
                at = line + 2
                continue
            try:
                size = int(rest[at:line].partition(b";")[0], 16)
            except ValueError:
                raise HttpError(f"no chunk size: {rest[at:line][:20]!r}") from None
            if size == 0:
                self._last, at = True, line + 2
                continue
            if len(rest) < line + 2 + size + 2:
                break
            found.append(rest[line + 2 : line + 2 + size])
            at = line + 2 + size + 2
        self._rest = rest[at:]
        return b"".join(found)


class Pool:
    """Connections to one server, opened when none is idle."""

    def __init__(self, target: Target) -> None:
        """Begin with none."""
        self.target = target
        self._idle: list[Connection] = []

    async def take(self, *, new: bool = False) -> Connection:
        """Return a connection; an idle one unless it must be `new`.

        Raises:
            OSError: the server cannot be reached.
        """
        while self._idle and not new:
            connection = self._idle.pop()
            if connection.idle:
                return connection
            connection.close()
        return await Connection.open(self.target)

    def give(self, connection: Connection) -> None:
        """Take a connection back; one that cannot be used again is closed."""
        if connection.idle:
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close those that are idle."""
        while self._idle:
            self._idle.pop().close()
