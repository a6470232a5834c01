"""RESP2 for the modules that speak to stores, so that a node needs no client."""

from __future__ import annotations

import socket
import time
from typing import Any

POLL_S = 0.2
CALL_TIMEOUT_S = 5.0


class ReplyError(Exception):
    """The store answered with an error."""


class Connection:
    """One RESP2 connection."""

    def __init__(self, host: str, port: int) -> None:
        """Connect, or raise OSError."""
        self._socket = socket.create_connection((host, port), timeout=CALL_TIMEOUT_S)
        self._stream = self._socket.makefile("rb")

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()
        self._socket.close()

    def call(self, *words: str) -> Any:
        """Send one command and return its reply; raises ReplyError or OSError."""
        parts = [f"*{len(words)}\r\n".encode()]
        for word in words:
            data = word.encode()
            parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
        self._socket.sendall(b"".join(parts))
        return self._reply()

    def config(self) -> dict[str, str]:
        """Return every directive with its effective value."""
        reply = self.call("CONFIG", "GET", "*")
        return {str(reply[n]).lower(): str(reply[n + 1]) for n in range(0, len(reply), 2)}

    def _reply(self) -> Any:
        line = self._stream.readline()
        if not line.endswith(b"\r\n"):
            raise OSError("the store closed the connection")
        kind, rest = line[:1], line[1:-2].decode(errors="replace")
        if kind == b"-":
            raise ReplyError(rest)
        if kind == b"$":
            return None if rest == "-1" else self._stream.read(int(rest) + 2)[:-2].decode(errors="replace")
        if kind == b"*":
            return [self._reply() for _ in range(int(rest))]
        return int(rest) if kind == b":" else rest


def log_in(host: str, port: int, password: str) -> Connection:
    """Return an authenticated connection to a store that answers PING; raises ReplyError or OSError."""
    connection = Connection(host, port)
    try:
        connection.call("AUTH", password)
        connection.call("PING")
    except (OSError, ReplyError):
        connection.close()
        raise
    return connection


def await_ready(host: str, port: int, password: str, timeout: float) -> Connection:
    """Return log_in as soon as it succeeds; raises TimeoutError with the last reason."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            return log_in(host, port, password)
        except (OSError, ReplyError) as error:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{host}:{port} is not ready after {timeout:.0f} s: {error}") from error
            # The one wait here is between two looks at the condition, never instead of a look.
            time.sleep(POLL_S)


STORE_OPTIONS: dict[str, dict[str, Any]] = {
    "drive": {"type": "str", "required": True},
    "unit": {"type": "str", "required": True},
    "host": {"type": "str", "required": True},
    "port": {"type": "int", "required": True},
    "password": {"type": "str", "required": True, "no_log": True},
    "path": {"type": "path", "required": True},
    # It holds the password.
    "conf": {"type": "str", "required": True, "no_log": True},
    "config": {"type": "dict", "required": True},
    "live": {"type": "list", "elements": "str", "required": True},
    "drop_in": {"type": "str", "default": ""},
    "drop_in_path": {"type": "path"},
}
"""A store as the filter kvstrata_stores describes it (src/kvstrata/kvrocks/store.py)."""

STORES = {"type": "list", "elements": "dict", "required": True, "options": STORE_OPTIONS}
