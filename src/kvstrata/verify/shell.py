"""What a check may do on a node, whatever carries it. `ssh` is the real carrier; tests bring their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from kvstrata.verify.check import UnableError
from kvstrata.verify.forward import Channel


class UnreachableError(UnableError):
    """The node can't be reached, or the connection to it was lost."""


class CommandTimeoutError(UnableError):
    """A command on the node did not end in time."""


@dataclass(frozen=True)
class Completed:
    """A command that ended."""

    argv: tuple[str, ...]
    exit_code: int
    stdout: str
    stderr: str

    def text(self) -> str:
        """Standard output without the surrounding white space; UnableError when the command failed."""
        if self.exit_code != 0:
            said = self.stderr.strip() or self.stdout.strip() or "nothing"
            raise UnableError(f"`{' '.join(self.argv)}` exited {self.exit_code} and said: {said}")
        return self.stdout.strip()


class Reach(StrEnum):
    """What came of a TCP connection tried from a node."""

    OPEN = "open"
    REFUSED = "refused"
    SILENT = "no answer"


class Tunnel(Protocol):
    """A way to an address as a node sees it."""

    def connect(self) -> Channel:
        """A new connection; ConnectionError says why there is none."""

    @property
    def port(self) -> int:
        """A local port on 127.0.0.1 that leads there, for what needs a real socket."""

    @property
    def error(self) -> str | None:
        """Why the last connection could not be carried, if it couldn't."""


class Shell(Protocol):
    """One node. Every method raises UnreachableError when there is no connection to be had."""

    def run(self, argv: Sequence[str], timeout_s: float = 30) -> Completed:
        """Run a command as root and wait for it; CommandTimeoutError after `timeout_s` seconds."""

    def tunnel(self, host: str, port: int) -> Tunnel:
        """The way to host:port as seen from the node; it lasts as long as the shell."""

    def probe(self, host: str, port: int, timeout_s: float = 5) -> Reach:
        """Whether the node can open a TCP connection to host:port."""

    def close(self) -> None:
        """Give everything back; safe to call twice."""
