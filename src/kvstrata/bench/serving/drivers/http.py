"""HTTP/1.1 POST with a streamed answer, on asyncio alone.

General clients take several times as long for each piece of an answer (docs/workloads.md has figures), and a client's
delays are counted as the engine's. This one reads what a load generator needs: bodies by Content-Length, chunked, or
until the end; no redirects, no compression, no proxies.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

_READ = 1 << 16
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


class Connection:
    """One connection, for one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        """Wrap the streams; `open` makes them."""
        self._reader, self._writer, self._host = reader, writer, host
        self.used = False
        self._again = True

    @classmethod
    async def open(cls, target: Target) -> Connection:
        """Connect.

        Raises:
            OSError: it cannot be reached.
        """
        reader, writer = await asyncio.open_connection(target.host, target.port, ssl=target.tls, limit=_HEAD_LIMIT)
        return cls(reader, writer, f"{target.host}:{target.port}")

    @property
    def idle(self) -> bool:
        """Whether it can take another request: the last answer was read, and the server has not hung up."""
        return self._again and not self._reader.at_eof() and not self._writer.is_closing()

    def close(self) -> None:
        """Drop it, whatever is under way."""
        self._again = False
        self._writer.close()

    async def post(self, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send a request and return its answer as soon as its head is there.

        Raises:
            ClosedError: hung up before any byte; on a connection that was `used`, another one may work.
            HttpError, OSError: anything else that is no answer.
        """
        self._again = False
        fields = {"Host": self._host, "Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
        head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items()) + "\r\n"
        try:
            self._writer.write(head.encode("latin-1") + body)
            await self._writer.drain()
            raw = await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            kind = HttpError if error.partial else ClosedError
            raise kind("the server hung up before it answered") from None
        except ConnectionError as error:
            raise ClosedError(f"the server hung up before it answered ({error})") from None
        except asyncio.LimitOverrunError:
            raise HttpError(f"the head of the answer is longer than {_HEAD_LIMIT} bytes") from None
        return self._answer(raw)

    def _answer(self, raw: bytes) -> Answer:
        first, *lines = raw.decode("latin-1").split("\r\n")
        version, _, rest = first.partition(" ")
        if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
            raise HttpError(f"no HTTP answer: {first[:60]!r}")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return Answer(int(rest[:3]), headers, self._reader, self)

    def done(self, *, again: bool) -> None:
        """Say that the answer has been read, and whether the connection can be used again."""
        self._again, self.used = again, True


class Answer:
    """The head of an answer, and its body as it comes."""

    def __init__(
        self, status: int, headers: Mapping[str, str], reader: asyncio.StreamReader, connection: Connection
    ) -> None:
        """`status` and `headers` (names in lower case) as the server gave them."""
        self.status, self.headers = status, headers
        self._reader, self._connection = reader, connection

    async def body(self) -> AsyncIterator[bytes]:
        """Yield the body's bytes as they come.

        Raises:
            HttpError: it ends too early, or is framed wrongly.
        """
        keeps = self.headers.get("connection", "").lower() != "close"
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            chunks = Chunks()
            while not chunks.ended:
                if content := chunks.feed(await self._read()):
                    yield content
        elif length := self.headers.get("content-length"):
            left = int(length)
            while left > 0:
                content = await self._read()
                left -= len(content)
                yield content
        else:
            keeps = False
            while content := await self._reader.read(_READ):
                yield content
        self._connection.done(again=keeps)

    async def _read(self) -> bytes:
        content = await self._reader.read(_READ)
        if not content:
            raise HttpError("the server hung up in the middle of its answer")
        return content


class Chunks:
    """Takes the framing of a chunked body away (RFC 9112, section 7.1); trailers are dropped."""

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
