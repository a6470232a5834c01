"""The carrier of every check: one SSH connection per node, with deadlines and known host keys only."""

from __future__ import annotations

import contextlib
import functools
import logging
import resource
import select
import shlex
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from paramiko.config import SSH_PORT
from paramiko.pkey import UnknownKeyType

from kvstrata.cluster import Ssh
from kvstrata.verify.forward import Channel, LoopbackForward
from kvstrata.verify.known_hosts import known_hosts
from kvstrata.verify.shell import CommandTimeoutError, Completed, Reach, UnreachableError

CHUNK_BYTES = 1 << 16
KEEPALIVE_S = 15
OPEN_FILES = 16384
# Key exchanges at the same time. They cost computing time, of which 500 at once would each get so little that
# nodes were taken for silent.
HANDSHAKES = 32
# RFC 4254, 5.1: the code for "the server could not connect to the target".
CONNECT_FAILED = 2
# EOFError is how paramiko tells that the other side hung up in the middle of something.
_TROUBLE = (paramiko.SSHException, OSError, EOFError)
_handshakes = threading.BoundedSemaphore(HANDSHAKES)
# What paramiko logs is told by the checks; unhandled, it would also be printed.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


class SshShell:
    """A node over SSH. Connects when first used; a failure to connect is remembered, not repeated."""

    def __init__(self, ssh: Ssh, connect_timeout_s: float = 10) -> None:
        """Nothing is contacted yet."""
        self._ssh = ssh
        self._connect_timeout_s = connect_timeout_s
        self._lock = threading.Lock()
        # paramiko keeps one "last exception" per connection: two failing openings would mix theirs up.
        self._opening = threading.Lock()
        self._client: paramiko.SSHClient | None = None
        self._failure: str | None = None
        self._tunnels: dict[tuple[str, int], LoopbackForward] = {}

    def run(self, argv: Sequence[str], timeout_s: float = 30) -> Completed:
        """See `Shell.run`."""
        full = ["sudo", "-n", *argv] if self._ssh.become else list(argv)
        deadline = time.monotonic() + timeout_s
        try:
            channel = self._transport().open_session(timeout=min(timeout_s, self._connect_timeout_s))
            channel.settimeout(timeout_s)
            channel.exec_command(shlex.join(full))
            return _collect(channel, tuple(argv), deadline, timeout_s)
        except _TROUBLE as error:
            raise UnreachableError(f"SSH to {self._where()}: {_reason(error)}") from error

    def tunnel(self, host: str, port: int) -> LoopbackForward:
        """See `Shell.tunnel`."""
        transport = self._transport()
        with self._lock:
            known = self._tunnels.get((host, port))
            if known is None:
                known = LoopbackForward(lambda: self._direct(transport, host, port))
                self._tunnels[host, port] = known
            return known

    def probe(self, host: str, port: int, timeout_s: float = 5) -> Reach:
        """See `Shell.probe`."""
        transport = self._transport()
        try:
            with self._opening:
                channel = transport.open_channel("direct-tcpip", (host, port), ("127.0.0.1", 0), timeout=timeout_s)
            channel.close()
        except paramiko.ChannelException as error:
            if error.code == CONNECT_FAILED:
                return Reach.REFUSED
            raise UnreachableError(
                f"sshd of {self._where()} forwards nothing: {_reason(error)} (AllowTcpForwarding)"
            ) from error
        except _TROUBLE as error:
            # paramiko says so, and only so, when the other side stays silent.
            if transport.is_active() and "imeout" in str(error):
                return Reach.SILENT
            raise UnreachableError(f"SSH to {self._where()}: {_reason(error)}") from error
        return Reach.OPEN

    def close(self) -> None:
        """See `Shell.close`."""
        with self._lock:
            for tunnel in self._tunnels.values():
                tunnel.close()
            self._tunnels.clear()
            if self._client is not None:
                self._client.close()
            self._client, self._failure = None, "closed"

    def _direct(self, transport: paramiko.Transport, host: str, port: int) -> Channel:
        with self._opening:
            channel = transport.open_channel(
                "direct-tcpip", (host, port), ("127.0.0.1", 0), timeout=self._connect_timeout_s
            )
        return cast(Channel, channel)

    def _where(self) -> str:
        return f"{self._ssh.user}@{self._ssh.host}:{self._ssh.port}"

    def _transport(self) -> paramiko.Transport:
        # Under the lock: a neighbour's check may want this connection at the same time.
        with self._lock:
            if self._failure is not None:
                raise UnreachableError(self._failure)
            if self._client is None:
                try:
                    self._client = self._connect()
                except _TROUBLE as error:
                    self._failure = f"SSH to {self._where()}: {_reason(error)}"
                    raise UnreachableError(self._failure) from error
            transport = self._client.get_transport()
            if transport is None or not transport.is_active():
                raise UnreachableError(f"SSH to {self._where()}: the connection was lost")
            return transport

    def _connect(self) -> paramiko.SSHClient:
        _allow_open_files()
        ssh, client = self._ssh, paramiko.SSHClient()
        # A host that isn't known is refused: whoever answered would be handed the checks' trust.
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        name = ssh.host if ssh.port == SSH_PORT else f"[{ssh.host}]:{ssh.port}"
        for trusted in known_hosts(ssh.known_hosts).keys(name):
            client.get_host_keys().add(name, trusted.get_name(), trusted)
        wait = self._connect_timeout_s
        key = None if ssh.key is None else _key(ssh.key)
        own = ssh.key is None
        connection = _answering(ssh.host, ssh.port, wait)
        try:
            with _handshakes:
                client.connect(
                    ssh.host,
                    port=ssh.port,
                    username=ssh.user,
                    pkey=key,
                    look_for_keys=own,
                    # An agent can also open the key file that has a passphrase.
                    allow_agent=key is None,
                    sock=connection,
                    transport_factory=cast(Any, _transport_of),
                    timeout=wait,
                    banner_timeout=wait,
                    auth_timeout=wait,
                    channel_timeout=wait,
                )
        except BaseException:
            client.close()
            connection.close()
            raise
        transport = client.get_transport()
        if transport is not None:
            transport.set_keepalive(KEEPALIVE_S)
        return client


def _transport_of(connection: socket.socket, **options: Any) -> paramiko.Transport:
    transport = paramiko.Transport(connection, **options)
    # First the ciphers that authenticate too: with the others paramiko computes and compares a MAC in Python.
    offered = transport.get_security_options()
    offered.ciphers = sorted(offered.ciphers, key=lambda name: "gcm" not in name)
    return transport


@functools.cache
def _allow_open_files() -> None:
    """Some systems allow a program 1024 open files unless it asks for more, as a large site must."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _answering(host: str, port: int, timeout_s: float) -> socket.socket:
    """A connection whose other side has begun to speak; a silent one waits here, where it holds up no other."""
    connection = socket.create_connection((host, port), timeout_s)
    try:
        # Commands are short packets one after the other: Nagle's algorithm would hold each for 40 ms.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Every server says its version first. Peeked at, for paramiko wants to read it itself.
        connection.recv(1, socket.MSG_PEEK)
    except BaseException:
        connection.close()
        raise
    return connection


def _key(path: Path) -> paramiko.PKey | None:
    """The private key in a file; None when it has a passphrase. Raises SSHException, OSError."""
    # Read here: given the file's name, paramiko reports a refused key as one of the wrong kind.
    try:
        return paramiko.PKey.from_path(path)
    except TypeError:
        return None
    except (ValueError, UnsupportedAlgorithm, UnknownKeyType) as error:
        raise paramiko.SSHException(f"{path}: not a private key that can be read") from error


def _collect(channel: paramiko.Channel, argv: tuple[str, ...], deadline: float, timeout_s: float) -> Completed:
    """Read both streams as they come, so that neither can block the other, until the command ended."""
    out, err = bytearray(), bytearray()
    # Not select(), which knows no descriptor beyond 1023: a large site has more.
    poller = select.poll()
    try:
        poller.register(channel.fileno(), select.POLLIN)
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise CommandTimeoutError(f"`{' '.join(argv)}` did not end within {timeout_s:g} s")
            poller.poll(left * 1000)
            while channel.recv_ready():
                out += channel.recv(CHUNK_BYTES)
            while channel.recv_stderr_ready():
                err += channel.recv_stderr(CHUNK_BYTES)
            ended = channel.eof_received or channel.closed
            if ended and not channel.recv_ready() and not channel.recv_stderr_ready():
                break
        if not channel.status_event.wait(max(0.0, deadline - time.monotonic())):
            raise CommandTimeoutError(f"`{' '.join(argv)}` did not end within {timeout_s:g} s")
        exit_code = channel.recv_exit_status()
    finally:
        channel.close()
    if exit_code == -1:
        raise UnreachableError(f"the connection was lost while `{' '.join(argv)}` ran")
    return Completed(argv, exit_code, out.decode(errors="replace"), err.decode(errors="replace"))


def _reason(error: Exception) -> str:
    if isinstance(error, socket.timeout):
        return "no answer in time"
    if isinstance(error, FileNotFoundError):
        return f"{error.filename}: no such file"
    if isinstance(error, paramiko.BadHostKeyException):
        return "its host key is not the one in known_hosts"
    if isinstance(error, EOFError):
        return "the connection was lost"
    text = str(error) or type(error).__name__
    return f"{text} (accept its key into known_hosts first)" if "not found in known_hosts" in text else text
