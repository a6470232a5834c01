"""The other side of a connection, on loopback, doing exactly what a test says."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, cast

from kvstrata.l2.wire import Connection

STALL_S = 0.25


@contextlib.contextmanager
def pair(said: bytes = b"", splits: Sequence[int] | None = None) -> Iterator[tuple[Connection, socket.socket]]:
    """Yield a connection and its other side, which has said `said` already.

    With `splits` the connection's receiving calls get so many bytes each, in turn: what a network does by chance.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = Connection(listener.getsockname(), 5, STALL_S)
        other, _ = listener.accept()
    with other:
        other.sendall(said)
        if splits is not None:
            connection._socket = cast(socket.socket, Splitting(connection._socket, splits))
        yield connection, other
        connection.close()


class Splitting:
    """A socket whose receiving calls get the given numbers of bytes, one after another, and then all they ask for."""

    def __init__(self, inner: socket.socket, sizes: Sequence[int]) -> None:
        self._inner = inner
        self._sizes = list(sizes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def recv_into(self, destination: memoryview) -> int:
        return self._inner.recv_into(destination[: self._next()])

    def recvmsg_into(self, views: Sequence[memoryview], *rest: int) -> tuple[int, list[Any], int, Any]:
        left, cut = self._next(), []
        for view in views:
            cut.append(view[:left])
            left -= len(cut[-1])
        return self._inner.recvmsg_into(cut, *rest)

    def _next(self) -> int:
        return max(1, self._sizes.pop(0)) if self._sizes else 1 << 30


class Peer:
    """A server that does `talk` with each connection, in a thread of its own; TCP, TLS or a unix socket."""

    def __init__(
        self, talk: Callable[[socket.socket], object], tls: ssl.SSLContext | None = None, unix: str | None = None
    ) -> None:
        self._talk = talk
        self._tls = tls
        if unix:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(unix)
            self._listener.listen()
        else:
            self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] | str = unix or self._listener.getsockname()
        self.stopping = threading.Event()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Peer:
        self._threads[0].start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(accepted,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, accepted: socket.socket) -> None:
        with contextlib.suppress(OSError), accepted:
            if self._tls is None:
                self._talk(accepted)
            else:
                with self._tls.wrap_socket(accepted, server_side=True) as wrapped:
                    self._talk(wrapped)


def dribble(data: bytes, every_s: float, stopping: threading.Event) -> Callable[[socket.socket], None]:
    """Say `data` a byte at a time."""

    def talk(side: socket.socket) -> None:
        for byte in data:
            side.sendall(bytes([byte]))
            if stopping.wait(every_s):
                return

    return talk


def bulk(value: bytes | None) -> bytes:
    """Return a bulk reply."""
    return b"$-1\r\n" if value is None else b"$%d\r\n%s\r\n" % (len(value), value)


def pattern(size: int, seed: int = 0) -> bytes:
    """Return bytes without order, the same each time."""
    return hashlib.shake_256(b"%d.%d" % (seed, size)).digest(size)


def commands(side: socket.socket) -> Iterator[list[bytes]]:
    """Yield the commands that come in, until the other side closes."""
    with side.makefile("rb") as stream:
        while head := stream.readline():
            words = []
            for _ in range(int(head[1:])):
                size = int(stream.readline()[1:])
                words.append(stream.read(size + 2)[:-2])
            yield words


def answering(answer: Callable[[list[bytes]], bytes | None]) -> Callable[[socket.socket], None]:
    """Talk like a store: `answer` is the reply to a command; None closes the connection."""

    def talk(side: socket.socket) -> None:
        for words in commands(side):
            reply = b"+PONG\r\n" if words == [b"PING"] else answer(words)
            if reply is None:
                return
            side.sendall(reply)

    return talk
