"""The SSH carrier against a real SSH server in this process."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import httpx
import paramiko
import pytest

from kvstrata.cluster import Ssh
from kvstrata.verify import hints
from kvstrata.verify.shell import CommandTimeoutError, Reach, UnreachableError
from kvstrata.verify.ssh import HANDSHAKES, SshShell
from tests.verify.fakes.shell import closed_port
from tests.verify.fakes.sshd import Sshd
from tests.verify.fakes.web import WebServer


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    with Sshd(tmp_path) as server:
        yield server


def settings(sshd: Sshd) -> Ssh:
    return Ssh("127.0.0.1", sshd.port, "root", sshd.key_file, sshd.known_hosts, become=False)


@pytest.fixture
def shell(sshd: Sshd) -> Iterator[SshShell]:
    shell = SshShell(settings(sshd), connect_timeout_s=3)
    yield shell
    shell.close()


def test_a_command_gives_its_words_streams_and_exit_status(shell: SshShell) -> None:
    done = shell.run(["sh", "-c", 'printf "%s" "$1"; echo bad >&2; exit 3', "sh", "two  words; $HOME"])
    assert (done.exit_code, done.stdout, done.stderr) == (3, "two  words; $HOME", "bad\n")


def test_more_output_than_a_window_holds_arrives_whole(shell: SshShell) -> None:
    done = shell.run(["sh", "-c", "head -c 5000000 /dev/zero | tr '\\0' x; head -c 3000000 /dev/zero >&2"])
    assert (len(done.stdout), len(done.stderr)) == (5_000_000, 3_000_000)


def test_one_connection_serves_every_command(shell: SshShell, sshd: Sshd) -> None:
    for _ in range(3):
        assert shell.run(["true"]).exit_code == 0
    assert sshd.connections == 1


def test_a_command_that_does_not_end_is_given_up(shell: SshShell) -> None:
    started = time.monotonic()
    with pytest.raises(CommandTimeoutError, match=r"`sleep 3` did not end within 0\.3 s"):
        shell.run(["sleep", "3"], timeout_s=0.3)
    assert time.monotonic() - started < 2


def test_commands_go_through_sudo_where_the_login_is_not_root(sshd: Sshd, tmp_path: Path) -> None:
    become = Ssh("127.0.0.1", sshd.port, "op", sshd.key_file, sshd.known_hosts, become=True)
    shell = SshShell(become)
    try:
        done = shell.run(["echo", "hello"])
    finally:
        shell.close()
    # Where the tests run there may be no sudo: what it says about itself shows that it was called.
    assert done.stdout == "hello\n" or "sudo" in done.stderr


def test_an_unknown_host_key_is_refused(sshd: Sshd) -> None:
    sshd.known_hosts.write_text("")
    with pytest.raises(UnreachableError, match="not found in known_hosts"):
        SshShell(settings(sshd)).run(["true"])


def test_a_changed_host_key_is_refused(sshd: Sshd) -> None:
    sshd.trust(paramiko.ECDSAKey.generate())
    with pytest.raises(UnreachableError, match="its host key is not the one in known_hosts"):
        SshShell(settings(sshd)).run(["true"])


def test_a_missing_known_hosts_file_is_named(sshd: Sshd) -> None:
    sshd.known_hosts.unlink()
    with pytest.raises(UnreachableError, match="known_hosts: no such file"):
        SshShell(settings(sshd)).run(["true"])


def test_a_wrong_key_is_refused(sshd: Sshd) -> None:
    sshd.user_key = paramiko.ECDSAKey.generate()
    with pytest.raises(UnreachableError, match="Authentication failed"):
        SshShell(settings(sshd)).run(["true"])


def test_a_key_file_that_holds_none_is_named(sshd: Sshd) -> None:
    sshd.key_file.write_text("nothing")
    with pytest.raises(UnreachableError, match="key: not a private key that can be read"):
        SshShell(settings(sshd)).run(["true"])


def test_a_key_with_a_passphrase_is_left_to_the_agent(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    sshd.user_key.write_private_key_file(str(sshd.key_file), password="phrase")
    with pytest.raises(UnreachableError, match="No authentication methods available"):
        SshShell(settings(sshd)).run(["true"])


def test_a_silent_node_is_given_up_once_and_remembered(sshd: Sshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = Ssh("127.0.0.1", silent.getsockname()[1], "root", sshd.key_file, sshd.known_hosts, False)
        shell = SshShell(where, connect_timeout_s=0.5)
        started = time.monotonic()
        for _ in range(3):
            with pytest.raises(UnreachableError):
                shell.run(["true"])
        assert time.monotonic() - started < 2


def test_silent_nodes_hold_up_no_handshake(sshd: Sshd) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=200) as silent:
        where = Ssh("127.0.0.1", silent.getsockname()[1], "root", sshd.key_file, sshd.known_hosts, False)
        shells = [SshShell(where, connect_timeout_s=20) for _ in range(2 * HANDSHAKES)]
        threads = [threading.Thread(target=_greet, args=(shell,), daemon=True) for shell in shells]
        for thread in threads:
            thread.start()
        good = SshShell(settings(sshd))
        started = time.monotonic()
        assert good.run(["true"]).exit_code == 0
        assert time.monotonic() - started < 5
        good.close()
        # Otherwise each of them would wait for the rest of its 20 s.
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def _greet(shell: SshShell) -> None:
    with contextlib.suppress(UnreachableError):
        shell.run(["true"])


def test_a_short_packet_is_sent_at_once(shell: SshShell) -> None:
    # Nagle's algorithm and delayed acknowledgements together cost 40 ms for each command.
    connection = cast(socket.socket, shell._transport().sock)
    assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_a_lost_connection_is_unreachable(shell: SshShell, sshd: Sshd) -> None:
    shell.run(["true"])
    sshd.drop()
    with pytest.raises(UnreachableError):
        shell.run(["true"])


def test_http_goes_through_a_tunnel(shell: SshShell) -> None:
    with WebServer() as web:
        web.routes["/big"] = lambda body: "x" * 3_000_000
        tunnel = shell.tunnel("127.0.0.1", web.port)
        assert tunnel.port != web.port
        for _ in range(2):
            answer = httpx.get(f"http://127.0.0.1:{tunnel.port}/big", trust_env=False)
            assert len(answer.text) == 3_000_000
        assert shell.tunnel("127.0.0.1", web.port) is tunnel


def test_a_tunnel_to_a_closed_port_says_why(shell: SshShell) -> None:
    tunnel = shell.tunnel("127.0.0.1", closed_port())
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"http://127.0.0.1:{tunnel.port}/", trust_env=False)
    assert tunnel.error is not None
    assert "Connect failed" in tunnel.error


def test_a_closed_shell_listens_no_more(shell: SshShell) -> None:
    port = shell.tunnel("127.0.0.1", closed_port()).port
    shell.close()
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except ConnectionRefusedError:
            return
        except ConnectionResetError:
            # It closed while this connection was being made.
            continue
    pytest.fail("still listening")


def test_a_probe_tells_open_from_refused(shell: SshShell) -> None:
    with WebServer() as web:
        assert shell.probe("127.0.0.1", web.port) is Reach.OPEN
    assert shell.probe("127.0.0.1", closed_port()) is Reach.REFUSED


def test_a_probe_where_sshd_forbids_forwarding_is_no_answer(shell: SshShell, sshd: Sshd) -> None:
    sshd.forwarding = False
    with pytest.raises(UnreachableError, match="AllowTcpForwarding"):
        shell.probe("127.0.0.1", 1)


def test_a_hint_is_a_command_that_works_as_pasted() -> None:
    plain = Ssh("10.77.0.11", 22, "root", None, None, become=False)
    assert hints.journal(plain, "kvrocks@d0") == "ssh root@10.77.0.11 journalctl -u kvrocks@d0 -n 50 --no-pager"
    full = Ssh("10.0.0.1", 2222, "op", Path("/k e y"), Path("/known"), become=True)
    assert hints.on_node(full, "ss -ltn | cat") == (
        "ssh -i '/k e y' -o UserKnownHostsFile=/known -p 2222 op@10.0.0.1 'sudo ss -ltn | cat'"
    )
