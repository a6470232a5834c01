"""RESP over one plain socket: gathered sends, values received into one preallocated buffer. Standard library only."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

_HEADROOM = 1 << 16


class WrongAnswerError(Exception):
    """The server answered with an error, or with another value than was written."""


class Connection:
    """One RESP connection with one receive buffer."""

    def __init__(self, port: int, largest: int, timeout_s: float) -> None:
        """Connect to 127.0.0.1:`port`; answers carry values of up to `largest` bytes."""
        self._socket = socket.create_connection(("127.0.0.1", port), timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Deadlines in the kernel: Python's own would cost a poll() before every call.
        self._socket.settimeout(None)
        limit = struct.pack("ll", int(timeout_s), int(timeout_s % 1 * 1e6))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        self._timeout_s = timeout_s
        self._buffer = bytearray(largest + _HEADROOM)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def send(self, parts: Sequence[bytes | memoryview]) -> None:
        """Send all parts, gathered, without joining them."""
        queue = [memoryview(part) for part in parts]
        while queue:
            sent = self._socket.sendmsg(queue[:512])
            while queue and sent >= len(queue[0]):
                sent -= len(queue.pop(0))
            if sent:
                queue[0] = queue[0][sent:]

    def line(self) -> bytes:
        """Return the next line of the answer, without its end."""
        while (at := self._buffer.find(b"\r\n", self._start, self._end)) < 0:
            self._receive(1)
        found = bytes(self._view[self._start : at])
        self._start = at + 2
        if found[:1] == b"-":
            raise WrongAnswerError(found.decode(errors="replace"))
        return found

    def bulk(self) -> memoryview | None:
        """Return the next answer as a view of the buffer, valid until the next call; None where there is no value."""
        head = self.line()
        if head[:1] != b"$":
            raise WrongAnswerError(f"expected a value, got {head[:80]!r}")
        size = int(head[1:])
        if size < 0:
            return None
        if size + 2 > len(self._buffer):
            raise WrongAnswerError(f"a value of {size} bytes where at most {len(self._buffer) - _HEADROOM} was written")
        while self._end - self._start < size + 2:
            self._receive(size + 2 - (self._end - self._start))
        value = self._view[self._start : self._start + size]
        self._start += size + 2
        return value

    def command(self, *words: str) -> str | list[str]:
        """Send one command and return its answer as text; for administration, not for load."""
        self.send([encode([word.encode() for word in words])])
        return self._answer()

    def _answer(self) -> str | list[str]:
        self._receive_some()
        kind = self._buffer[self._start : self._start + 1]
        if kind == b"$":
            value = self.bulk()
            return "" if value is None else bytes(value).decode(errors="replace")
        head = self.line()
        if kind != b"*":
            return head[1:].decode(errors="replace")
        return [answer for _ in range(int(head[1:])) if isinstance(answer := self._answer(), str)]

    def _receive_some(self) -> None:
        if self._start == self._end:
            self._receive(1)

    def _receive(self, missing: int) -> None:
        """Receive at least one byte more, with room for `missing`."""
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end + missing > len(self._buffer):
            left = self._end - self._start
            self._buffer[:left] = self._buffer[self._start : self._end]
            self._start, self._end = 0, left
        try:
            count = self._socket.recv_into(self._view[self._end :])
        except BlockingIOError as error:
            raise TimeoutError(f"no answer within {self._timeout_s:g} s") from error
        if count == 0:
            raise ConnectionError("the server closed the connection")
        self._end += count


def encode(words: Sequence[bytes]) -> bytes:
    """Return a request of these words."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
