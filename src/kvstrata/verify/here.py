"""The machine that this runs on, as a node of the checks: for a host that nobody can reach by SSH."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Mapping, Sequence

from kvstrata.verify.forward import Channel, LoopbackForward
from kvstrata.verify.shell import CommandTimeoutError, Completed, Reach, UnreachableError


class HereShell:
    """See `Shell`: commands run as the user that this is, and addresses are reached as they are."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        """Run commands with `environment`, or with this program's own."""
        self._environment = dict(os.environ if environment is None else environment)
        self._tunnels: dict[tuple[str, int], LoopbackForward] = {}

    def run(self, argv: Sequence[str], timeout_s: float = 30) -> Completed:
        """See `Shell.run`."""
        try:
            done = subprocess.run(
                list(argv),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout_s,
                env=self._environment,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise CommandTimeoutError(f"`{' '.join(argv)}` did not end within {timeout_s:g} s") from None
        except FileNotFoundError:
            # As a shell says it, which is what SSH brings.
            return Completed(tuple(argv), 127, "", f"{argv[0]}: command not found")
        except OSError as error:
            raise UnreachableError(f"this machine does not run `{' '.join(argv)}`: {error.strerror}") from error
        return Completed(
            tuple(argv), done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )

    def tunnel(self, host: str, port: int) -> LoopbackForward:
        """See `Shell.tunnel`."""
        if (host, port) not in self._tunnels:
            self._tunnels[host, port] = LoopbackForward(lambda: _SocketChannel(host, port))
        return self._tunnels[host, port]

    def probe(self, host: str, port: int, timeout_s: float = 5) -> Reach:
        """See `Shell.probe`."""
        try:
            socket.create_connection((host, port), timeout_s).close()
        except TimeoutError:
            return Reach.SILENT
        except OSError:
            return Reach.REFUSED
        return Reach.OPEN

    def close(self) -> None:
        """See `Shell.close`."""
        for tunnel in self._tunnels.values():
            tunnel.close()
        self._tunnels.clear()


class _SocketChannel(Channel):
    """A connection with the words of an SSH channel."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), 10)
        self._socket.settimeout(None)

    def recv(self, nbytes: int, /) -> bytes:
        return self._socket.recv(nbytes)

    def sendall(self, data: bytes, /) -> object:
        self._socket.sendall(data)
        return None

    def settimeout(self, timeout: float | None, /) -> None:
        self._socket.settimeout(timeout)

    def shutdown(self, how: int, /) -> None:
        self._socket.shutdown(how)

    def shutdown_write(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._socket.close()
