"""A node that answers from a table instead of over SSH; its tunnels lead straight to local ports."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kvstrata.verify.shell import Completed, Reach, Tunnel, UnreachableError


class DirectChannel:
    """A socket with the few names of a channel that a socket lacks."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 10)
        self.recv, self.sendall = self._socket.recv, self._socket.sendall
        self.settimeout, self.close = self._socket.settimeout, self._socket.close

    def shutdown_write(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    def shutdown(self, how: int) -> None:
        self._socket.shutdown(how)


@dataclass
class DirectTunnel:
    port: int
    error: str | None = None

    def connect(self) -> DirectChannel:
        return DirectChannel(self.port)


def closed_port() -> int:
    """A local port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@dataclass
class FakeShell:
    """`answers` maps the first words of a command to what it prints, or to a function of its words."""

    answers: dict[str, str | Callable[[Sequence[str]], str]] = field(default_factory=dict)
    exits: dict[str, int] = field(default_factory=dict)
    ports: dict[tuple[str, int], int] = field(default_factory=dict)
    reaches: dict[tuple[str, int], Reach] = field(default_factory=dict)
    unreachable: str | None = None
    ran: list[str] = field(default_factory=list)
    closed: bool = False

    def run(self, argv: Sequence[str], timeout_s: float = 30) -> Completed:
        if self.unreachable is not None:
            raise UnreachableError(self.unreachable)
        line = " ".join(argv)
        self.ran.append(line)
        for start in sorted(self.answers, key=len, reverse=True):
            if line.startswith(start):
                answer = self.answers[start]
                text = answer if isinstance(answer, str) else answer(argv)
                return Completed(tuple(argv), self.exits.get(start, 0), text, "")
        return Completed(tuple(argv), 127, "", f"{argv[0]}: not found")

    def tunnel(self, host: str, port: int) -> Tunnel:
        if (host, port) in self.ports:
            return DirectTunnel(self.ports[host, port])
        return DirectTunnel(closed_port(), "Connection refused")

    def probe(self, host: str, port: int, timeout_s: float = 5) -> Reach:
        return self.reaches.get((host, port), Reach.REFUSED)

    def close(self) -> None:
        self.closed = True
