"""TLS over the streams of a forwarded connection, on the server's side."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import asyncssh

type Talk = Callable[[Any, Any], Awaitable[None]]


def serve(context: ssl.SSLContext, talk: Talk) -> Talk:
    """Shake hands, then have `talk` read and write what is inside."""

    async def encrypted(reader: asyncssh.SSHReader[bytes], writer: asyncssh.SSHWriter[bytes]) -> None:
        inside = _Inside(context, reader, writer)
        # A client that refuses the certificate says so, and goes.
        if await inside.handshake():
            await talk(inside, inside)

    return encrypted


class _Inside:
    """The decrypted side: as much of a reader and of a writer as `web` needs."""

    def __init__(
        self, context: ssl.SSLContext, reader: asyncssh.SSHReader[bytes], writer: asyncssh.SSHWriter[bytes]
    ) -> None:
        self._reader, self._writer = reader, writer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._session = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._buffer = b""

    async def handshake(self) -> bool:
        while True:
            try:
                self._session.do_handshake()
            except ssl.SSLWantReadError:
                if not await self._more():
                    return False
            except ssl.SSLError:
                return False
            else:
                self._flush()
                return True

    async def readuntil(self, end: bytes) -> bytes:
        while end not in self._buffer:
            await self._decrypt()
        return self._taken(self._buffer.index(end) + len(end))

    async def readexactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            await self._decrypt()
        return self._taken(size)

    def write(self, data: bytes) -> None:
        self._session.write(data)
        self._flush()

    async def drain(self) -> None:
        await self._writer.drain()

    def _taken(self, size: int) -> bytes:
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    async def _decrypt(self) -> None:
        while True:
            try:
                data = self._session.read(1 << 16)
            except ssl.SSLWantReadError:
                if not await self._more():
                    raise asyncio.IncompleteReadError(self._buffer, None) from None
                continue
            if not data:
                raise asyncio.IncompleteReadError(self._buffer, None)
            self._buffer += data
            return

    async def _more(self) -> bool:
        self._flush()
        data = await self._reader.read(1 << 16)
        self._incoming.write(data)
        return bool(data)

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._writer.write(self._outgoing.read())
