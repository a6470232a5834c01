"""The client against a server that speaks as QEMU does, on a real socket."""

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvstrata.lab.vmqmp import Qmp, QmpError

GREETING = {"QMP": {"version": {"qemu": {"major": 7}}, "capabilities": ["oob"]}}


class Server:
    """Sends `replies`, one list for each command it is given, and hangs up after the last."""

    def __init__(self, path: Path, greeting: bytes, replies: list[list[dict[str, Any]]]) -> None:
        self.commands: list[dict[str, Any]] = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen(1)
        self._greeting, self._replies = greeting, replies
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        with connection, connection.makefile("rwb") as stream:
            stream.write(self._greeting)
            stream.flush()
            for replies in self._replies:
                line = stream.readline()
                if not line:
                    return
                self.commands.append(json.loads(line))
                for reply in replies:
                    stream.write(json.dumps(reply).encode() + b"\r\n")
                stream.flush()

    def close(self) -> None:
        self._socket.close()
        self.thread.join(5)


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    made: list[Server] = []
    yield made
    for server in made:
        server.close()


def serve(servers: list[Server], path: Path, *replies: list[dict[str, Any]], greeting: Any = GREETING) -> Server:
    text = greeting if isinstance(greeting, bytes) else json.dumps(greeting).encode() + b"\r\n"
    servers.append(Server(path, text, list(replies)))
    return servers[-1]


def test_a_command_is_answered_between_events(servers: list[Server], tmp_path: Path) -> None:
    path = tmp_path / "qmp"
    event = {"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 2}}
    server = serve(servers, path, [{"return": {}}], [event, event, {"return": {"status": "paused"}}])
    with Qmp(path, timeout_s=5) as qmp:
        assert qmp.execute("query-status") == {"status": "paused"}
    assert server.commands == [{"execute": "qmp_capabilities"}, {"execute": "query-status"}]


def test_argument_names_have_hyphens_and_whole_commands_are_left_as_they_are(
    servers: list[Server], tmp_path: Path
) -> None:
    path = tmp_path / "qmp"
    server = serve(servers, path, [{"return": {}}], [{"return": {}}], [{"return": {}}])
    plug = {"execute": "device_add", "arguments": {"driver": "nvme", "logical_block_size": 512}}
    with Qmp(path, timeout_s=5) as qmp:
        qmp.execute("migrate-set-parameters", max_bandwidth=1)
        qmp.send(plug)
    assert server.commands[1:] == [{"execute": "migrate-set-parameters", "arguments": {"max-bandwidth": 1}}, plug]


def test_a_refusal_is_told_in_qemus_words(servers: list[Server], tmp_path: Path) -> None:
    path = tmp_path / "qmp"
    refusal = {"error": {"class": "GenericError", "desc": "Bus 'rp9' not found"}}
    serve(servers, path, [{"return": {}}], [refusal], [{"return": 7}])
    with Qmp(path, timeout_s=5) as qmp:
        with pytest.raises(QmpError, match="QEMU refuses device_add: Bus 'rp9' not found"):
            qmp.execute("device_add", driver="nvme")
        assert qmp.execute("query-something") == 7


def test_qemu_that_goes_away_is_an_error_and_no_hang(servers: list[Server], tmp_path: Path) -> None:
    path = tmp_path / "qmp"
    serve(servers, path, [{"return": {}}])
    with Qmp(path, timeout_s=5) as qmp, pytest.raises(QmpError, match="is gone before"):
        qmp.execute("quit")


def test_qemu_that_does_not_answer_is_an_error_in_time(servers: list[Server], tmp_path: Path) -> None:
    path = tmp_path / "qmp"
    serve(servers, path, [{"return": {}}], [], [])
    with Qmp(path, timeout_s=0.2) as qmp, pytest.raises(QmpError, match="does not send the answer to query-status"):
        qmp.execute("query-status")


def test_no_socket_is_no_qemu(tmp_path: Path) -> None:
    with pytest.raises(QmpError, match="no QEMU listens on"):
        Qmp(tmp_path / "none", timeout_s=1)


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH_9.2\r\n", b"[]\n", b'{"hello": 1}\n'])
def test_another_server_is_not_taken_for_qemu(servers: list[Server], tmp_path: Path, greeting: bytes) -> None:
    path = tmp_path / "other"
    serve(servers, path, greeting=greeting)
    with pytest.raises(QmpError, match=r"does not speak QMP|is gone"):
        Qmp(path, timeout_s=1)
