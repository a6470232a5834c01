"""TCP forwarding: a loopback listener here whose connections continue in channels of an SSH session."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable
from typing import Protocol

CHUNK_BYTES = 1 << 18


class Channel(Protocol):
    """The socket-like part of a paramiko channel that forwarding needs."""

    def recv(self, nbytes: int) -> bytes: ...  # noqa: D102

    def sendall(self, data: bytes) -> object: ...  # noqa: D102

    def shutdown_write(self) -> None: ...  # noqa: D102

    def close(self) -> None: ...  # noqa: D102


class LoopbackForward:
    """Listens on a free port of 127.0.0.1 until closed; `open_channel` makes one channel per connection."""

    def __init__(self, open_channel: Callable[[], Channel]) -> None:
        """Start to listen at once."""
        self._open_channel = open_channel
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._wake, self._waker = socket.socketpair()
        self.error: str | None = None
        threading.Thread(target=self._accept, name="forward", daemon=True).start()

    @property
    def port(self) -> int:
        """The local port."""
        port: int = self._listener.getsockname()[1]
        return port

    def close(self) -> None:
        """Stop listening; connections under way end with their channels."""
        # Closing a listener doesn't wake the thread that waits in accept: this does.
        with contextlib.suppress(OSError):
            self._waker.send(b"x")

    def _accept(self) -> None:
        while True:
            ready, _, _ = select.select([self._listener, self._wake], [], [])
            if self._wake in ready:
                break
            connection, _ = self._listener.accept()
            threading.Thread(target=self._carry, args=(connection,), name="forward", daemon=True).start()
        for end in (self._listener, self._wake, self._waker):
            end.close()

    def _carry(self, connection: socket.socket) -> None:
        try:
            channel = self._open_channel()
        except Exception as error:
            # The client only sees its connection end; whoever reports that asks here for the reason.
            self.error = str(error) or type(error).__name__
            connection.close()
            return
        self.error = None
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
