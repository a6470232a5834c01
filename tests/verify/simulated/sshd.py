"""The way in: SSH for every node, each on its own loopback address, with asyncssh."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncssh

from tests.verify.simulated.commands import Said
from tests.verify.simulated.state import FakeNode

type Streams = tuple[asyncssh.SSHReader[bytes], asyncssh.SSHWriter[bytes]]
type Talk = Callable[[asyncssh.SSHReader[bytes], asyncssh.SSHWriter[bytes]], Awaitable[None]]
type Listening = asyncio.Server | asyncssh.SSHAcceptor
BACKLOG = 64


class Refused:
    """Nothing listens there."""


class Dropped:
    """A firewall lets nothing through, and says nothing."""


class Way:
    """One node as SSH shows it: `answer` for a command's words, `reach` for an address as the node sees it.

    An `answer` of None never ends.
    """

    def __init__(
        self,
        state: FakeNode,
        answer: Callable[[list[str]], Said | None],
        reach: Callable[[str, int], Talk | Refused | Dropped],
    ) -> None:
        self.state = state
        self.answer = answer
        self.reach = reach


class _Server(asyncssh.SSHServer):
    def __init__(self, way: Way, user_key: asyncssh.SSHKey) -> None:
        self._way = way
        self._key = user_key

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return key == self._key

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> Talk | Awaitable[asyncssh.SSHTCPSession[bytes]]:
        found = self._way.reach(dest_host, dest_port)
        if isinstance(found, Refused):
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "Connection refused")
        if isinstance(found, Dropped):
            return _never()

        async def talk(reader: asyncssh.SSHReader[bytes], writer: asyncssh.SSHWriter[bytes]) -> None:
            # A client that goes in the middle of something must not cost the whole SSH connection.
            try:
                await found(reader, writer)
            except (OSError, asyncssh.Error, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        return talk


async def _never() -> asyncssh.SSHTCPSession[bytes]:
    await asyncio.Event().wait()
    raise AssertionError("never comes back")


async def _silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while await reader.read(4096):
            pass
    finally:
        writer.close()


async def listen(way: Way, host: str, port: int, host_key: asyncssh.SSHKey, user_key: asyncssh.SSHKey) -> Listening:
    """Take connections at host:port until it is closed."""
    if way.state.silent:
        return await asyncio.start_server(_silence, host, port, backlog=BACKLOG)

    async def process(process: asyncssh.SSHServerProcess[str]) -> None:
        words = shlex.split(process.command or "")
        said = way.answer(words)
        if said is None:
            await asyncio.Event().wait()
            return
        await asyncio.sleep(said.delay_s)
        process.stdout.write(said.out)
        process.stderr.write(said.err)
        process.exit(said.status)

    return await asyncssh.listen(
        host,
        port,
        backlog=BACKLOG,
        server_factory=lambda: _Server(way, user_key),
        server_host_keys=[host_key],
        process_factory=process,
        login_timeout=60,
        keepalive_interval=0,
        compression_algs=None,
        errors="surrogateescape",
    )


def write_keys(folder: Path) -> None:
    """Write the controller's key and the nodes' host key into a folder."""
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(folder / "key")
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(folder / "host_key")
