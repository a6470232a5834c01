"""TCP forwarding: connections that continue in channels of an SSH session.

What speaks HTTP or RESP here uses a channel itself (`connect`). What needs a real socket gets a loopback port (`port`),
which costs descriptors and threads, and is opened only then.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable
from typing import Protocol

CHUNK_BYTES = 1 << 18


class Channel(Protocol):
    """The socket-like part of a paramiko channel."""

    def recv(self, nbytes: int, /) -> bytes: ...  # noqa: D102

    def sendall(self, data: bytes, /) -> object: ...  # noqa: D102

    def settimeout(self, timeout: float | None, /) -> None: ...  # noqa: D102

    def shutdown(self, how: int, /) -> object: ...  # noqa: D102 - redis-py wants it

    def shutdown_write(self) -> None: ...  # noqa: D102

    def close(self) -> None: ...  # noqa: D102


class LoopbackForward:
    """A way to one address as a node sees it; `open_channel` makes one channel per connection."""

    def __init__(self, open_channel: Callable[[], Channel]) -> None:
        """Open nothing yet."""
        self._open_channel = open_channel
        self._listener: socket.socket | None = None
        self._lock = threading.Lock()
        self._closed = False
        self.error: str | None = None

    def connect(self) -> Channel:
        """A new connection; ConnectionError says why there is none."""
        try:
            channel = self._open_channel()
        except Exception as error:
            # Whoever only sees a connection end asks here for the reason.
            self.error = str(error) or type(error).__name__
            raise ConnectionError(self.error) from error
        self.error = None
        return channel

    @property
    def port(self) -> int:
        """A port of 127.0.0.1 that listens until this is closed; ConnectionError afterwards."""
        with self._lock:
            if self._closed:
                raise ConnectionError("closed")
            if self._listener is None:
                self._listener = socket.create_server(("127.0.0.1", 0))
                _acceptor.add(self._listener, self._accepted)
            port: int = self._listener.getsockname()[1]
            return port

    def close(self) -> None:
        """Stop listening; connections under way end with their channels."""
        with self._lock:
            self._closed = True
            if self._listener is not None:
                _acceptor.remove(self._listener)
                self._listener = None

    def _accepted(self, connection: socket.socket) -> None:
        threading.Thread(target=self._carry, args=(connection,), name="forward", daemon=True).start()

    def _carry(self, connection: socket.socket) -> None:
        try:
            channel = self.connect()
        except ConnectionError:
            connection.close()
            return
        back = threading.Thread(target=_pump_back, args=(channel, connection), name="forward", daemon=True)
        back.start()
        try:
            while data := connection.recv(CHUNK_BYTES):
                channel.sendall(data)
            channel.shutdown_write()
        except OSError:
            channel.close()
        back.join()
        channel.close()
        connection.close()


def _pump_back(channel: Channel, connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := channel.recv(CHUNK_BYTES):
            connection.sendall(data)
    # Also when sending failed: it makes the other direction's recv return.
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class _Acceptor:
    """One thread for the listeners of all nodes: with a thread for each, a large site would have thousands."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._selector: selectors.BaseSelector | None = None

    def add(self, listener: socket.socket, accepted: Callable[[socket.socket], None]) -> None:
        """Pass connections of a listener on to `accepted`, which must not wait."""
        # A connection that is gone again must not keep the thread in accept.
        listener.setblocking(False)
        with self._lock:
            if self._selector is None:
                # epoll and kqueue both take listeners while a thread waits.
                self._selector = selectors.DefaultSelector()
                threading.Thread(target=self._accept, args=(self._selector,), name="accept", daemon=True).start()
            self._selector.register(listener, selectors.EVENT_READ, accepted)

    def remove(self, listener: socket.socket) -> None:
        """Close a listener."""
        with self._lock:
            if self._selector is not None:
                self._selector.unregister(listener)
            listener.close()

    def _accept(self, selector: selectors.BaseSelector) -> None:
        while True:
            for key, _ in selector.select():
                with self._lock, contextlib.suppress(OSError):
                    # Under the lock: a closed listener's number may already be another's.
                    listener = key.fileobj
                    if isinstance(listener, socket.socket) and listener.fileno() >= 0:
                        connection, _ = listener.accept()
                        connection.setblocking(True)
                        key.data(connection)


_acceptor = _Acceptor()
