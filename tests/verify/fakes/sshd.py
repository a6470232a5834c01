"""A real SSH server in this process: runs commands as this user and forwards TCP."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from pathlib import Path
from types import TracebackType

import paramiko
from paramiko import common


class Sshd(paramiko.ServerInterface):
    """One server; `forwards` of None refuses forwarding altogether."""

    def __init__(self, folder: Path) -> None:
        self.host_key = paramiko.ECDSAKey.generate()
        self.user_key = paramiko.ECDSAKey.generate()
        self.connections = 0
        self.forwarding = True
        self._stopping = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._targets: dict[int, tuple[str, int]] = {}
        self._transports: list[paramiko.Transport] = []
        self.key_file, self.known_hosts = folder / "key", folder / "known_hosts"
        self.user_key.write_private_key_file(str(self.key_file))
        self.trust(self.host_key)

    def trust(self, key: paramiko.PKey) -> None:
        """Write known_hosts with this key for the server."""
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {key.get_name()} {key.get_base64()}\n")

    def __enter__(self) -> Sshd:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stopping = True
        # Connecting to it wakes the accept; closing the listener alone would not.
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            pass
        for transport in self._transports:
            transport.close()

    def drop(self) -> None:
        """Cut every connection."""
        for transport in self._transports:
            transport.close()

    def _serve(self) -> None:
        with self._listener:
            while True:
                connection, _ = self._listener.accept()
                if self._stopping:
                    connection.close()
                    return
                transport = _Transport(connection)
                transport.add_server_key(self.host_key)
                self._transports.append(transport)
                try:
                    transport.start_server(server=self)
                except (paramiko.SSHException, EOFError, OSError):
                    if not transport.is_authenticated():
                        continue
                self.connections += 1
                threading.Thread(target=self._channels, args=(transport,), daemon=True).start()

    def _channels(self, transport: paramiko.Transport) -> None:
        while transport.is_active():
            channel = transport.accept(0.2)
            if channel is not None and channel.get_id() in self._targets:
                target = self._targets.pop(channel.get_id())
                threading.Thread(target=_bridge, args=(channel, target), daemon=True).start()

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return common.AUTH_SUCCESSFUL if key == self.user_key else common.AUTH_FAILED

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return common.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        execution = threading.Thread(target=_execute, args=(channel, command.decode()), daemon=True)
        transport = channel.get_transport()
        assert isinstance(transport, _Transport)
        transport.accepted.append(execution)
        return True

    def check_channel_direct_tcpip_request(
        self, chanid: int, origin: tuple[str, int], destination: tuple[str, int]
    ) -> int:
        if not self.forwarding:
            return common.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED
        try:
            socket.create_connection(destination, 1).close()
        except OSError:
            return common.OPEN_FAILED_CONNECT_FAILED
        self._targets[chanid] = destination
        return common.OPEN_SUCCEEDED


class _Transport(paramiko.Transport):
    """A transport that starts a command only when the client was told that it is accepted.

    A command as short as `true` would otherwise close its channel before that, and the client would see a refusal.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.accepted: list[threading.Thread] = []
        super().__init__(connection)

    def _send_user_message(self, data: paramiko.Message) -> None:
        super()._send_user_message(data)  # type: ignore[misc]  # private, and so not in the stubs
        if data.asbytes()[:1] == common.cMSG_CHANNEL_SUCCESS and self.accepted:
            self.accepted.pop(0).start()


def _execute(channel: paramiko.Channel, command: str) -> None:
    done = subprocess.run(["sh", "-c", command], capture_output=True, check=False)
    with contextlib.suppress(OSError):
        channel.sendall(done.stdout)
        channel.sendall_stderr(done.stderr)
        channel.send_exit_status(done.returncode)
        channel.close()


def _bridge(channel: paramiko.Channel, target: tuple[str, int]) -> None:
    with contextlib.suppress(ConnectionError), socket.create_connection(target, 5) as out:

        def back() -> None:
            with contextlib.suppress(OSError):
                while data := out.recv(65536):
                    channel.sendall(data)
            channel.close()

        thread = threading.Thread(target=back, daemon=True)
        thread.start()
        with contextlib.suppress(OSError):
            while data := channel.recv(65536):
                out.sendall(data)
            out.shutdown(socket.SHUT_WR)
        thread.join()
