"""The machine itself as a node: what commands and connections come to."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace

import pytest

from kvstrata.verify.here import HereShell
from kvstrata.verify.layers.store import access
from kvstrata.verify.shell import CommandTimeoutError, Reach, Shell
from tests.verify.fakes.site import Site


def test_a_command_runs_here_with_its_own_environment() -> None:
    shell: Shell = HereShell({"PATH": "/usr/bin:/bin", "A": "b"})
    done = shell.run(["sh", "-c", "echo $A; echo no >&2; exit 3"])
    assert (done.exit_code, done.stdout, done.stderr) == (3, "b\n", "no\n")


def test_a_program_that_is_not_there_is_told_as_a_shell_tells_it() -> None:
    done = HereShell({"PATH": "/usr/bin:/bin"}).run(["no-such-program"])
    assert (done.exit_code, done.stderr) == (127, "no-such-program: command not found")


def test_a_command_that_takes_too_long_is_ended() -> None:
    with pytest.raises(CommandTimeoutError, match=r"did not end within 0\.2 s"):
        HereShell().run(["sleep", "60"], timeout_s=0.2)


def test_a_tunnel_leads_to_the_address_by_channel_and_by_port() -> None:
    server = socket.create_server(("127.0.0.1", 0))

    def echo() -> None:
        for _ in range(2):
            connection, _ = server.accept()
            with connection:
                while data := connection.recv(100):
                    connection.sendall(data.upper())

    threading.Thread(target=echo, daemon=True).start()
    shell = HereShell()
    port = server.getsockname()[1]
    tunnel = shell.tunnel("127.0.0.1", port)
    channel = tunnel.connect()
    channel.sendall(b"one")
    assert channel.recv(100) == b"ONE"
    channel.close()
    with socket.create_connection(("127.0.0.1", tunnel.port)) as connection:
        connection.sendall(b"two")
        assert connection.recv(100) == b"TWO"
    assert shell.probe("127.0.0.1", port) is Reach.OPEN
    server.close()
    shell.close()
    assert HereShell().probe("127.0.0.1", port) is Reach.REFUSED


def test_a_store_is_asked_through_it_and_let_go_again(site: Site) -> None:
    store = replace(site.cluster.nodes[0].stores[0], host="127.0.0.1", port=site.resp["node1"].port)
    shell = HereShell()
    assert access.auth(shell, store) == "right password accepted, a wrong one and none refused"
    assert "sha256 equal, deleted" in access.RoundTrip(shell, store)()
    shell.close()
