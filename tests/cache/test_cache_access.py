"""The whole command as its users run it: a process of its own, SSH to the nodes, a terminal that is asked."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cache.conftest import OLD_CHUNKS
from tests.cache.servers import OLD, OLD_NS, PASSWORD, Server, document, fill, wait_until, write
from tests.verify.fakes.sshd import Sshd

COMMAND = [sys.executable, "-c", "from kvstrata.cli import main; main()", "cache"]


class Remote:
    """A site of one node that can be reached over SSH only by its own key."""

    def __init__(self, sshd: Sshd, server: Server, folder: Path) -> None:
        self.sshd, self.server = sshd, server
        found = document([server])
        ssh = {"host": "127.0.0.1", "port": sshd.port, "key": str(sshd.key_file), "known_hosts": str(sshd.known_hosts)}
        found["nodes"][0]["ssh"] |= ssh
        self.path = write(folder / "cluster.json", found)

    def argv(self, *words: str) -> list[str]:
        return [*COMMAND, *words, "--cluster", str(self.path)]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        argv = self.argv(*words)
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
        assert PASSWORD not in done.stdout + done.stderr
        return done


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Remote]:
    with Sshd(tmp_path) as sshd, Server("redis", tmp_path / "store") as server:
        fill([server], OLD, OLD_CHUNKS)
        yield Remote(sshd, server, tmp_path)


def test_the_stores_are_reached_through_ssh(remote: Remote) -> None:
    done = remote.run("du", "--json")
    assert (done.returncode, remote.sshd.connections) == (0, 1), done.stderr
    assert json.loads(done.stdout)["totals"]["used_bytes"] == 500_000
    done = remote.run("drop", OLD_NS, "--yes", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["totals"]["chunks"] == 3
    assert remote.server.traces(OLD_NS) == []


def test_a_node_that_is_not_reached_is_exit_status_2(remote: Remote) -> None:
    remote.sshd.known_hosts.write_text("")
    done = remote.run("ls", "--json")
    assert done.returncode == 2
    (row,) = json.loads(done.stdout)["unreachable"]
    assert (row["node"], row["drive"]) == ("node1", "d0")
    assert "not found in known_hosts" in row["error"]


def test_a_node_that_forwards_nothing_is_told_with_the_reason(remote: Remote) -> None:
    remote.sshd.forwarding = False
    (row,) = json.loads(remote.run("ls", "--json").stdout)["unreachable"]
    assert "prohibited" in row["error"].lower()


@pytest.mark.parametrize(("answer", "status", "left"), [("y\n", 0, 0), ("n\n", 1, 3), ("\x04", 1, 3), ("\x03", 1, 3)])
def test_on_a_terminal_it_asks_and_takes_only_a_yes(remote: Remote, answer: str, status: int, left: int) -> None:
    ours, theirs = pty.openpty()
    # setsid makes it the terminal's own, so that Ctrl-C is a signal there; a job in the background, as CI may be, hands
    # down that this signal is ignored.
    argv = ["env", "--default-signal=INT", "setsid", "--ctty", *remote.argv("drop", OLD_NS)]
    with subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        try:
            os.close(theirs)
            said = until_asked = terminal(ours, b"?")
            # Python looks for signals before it reads: one that comes between those two waits for the next key.
            wait_until(lambda: reads_standard_input(process.pid))
            os.write(ours, answer.encode())
            said += terminal(ours, None)
            assert process.wait(60) == status
        finally:
            process.kill()
    os.close(ours)
    assert f"Delete 3 chunks (488 KiB) of {OLD_NS} on 1 store?" in until_asked.decode()
    assert (": 3 chunks, 488 KiB deleted on 1 store" in said.decode()) == (status == 0)
    assert ("not confirmed; nothing was deleted" in said.decode()) == (status == 1)
    assert remote.server.chunks(OLD_NS) == left


def reads_standard_input(pid: int) -> bool:
    """Tell whether a process waits in a system call whose first argument is 0, by proc_pid_syscall(5)."""
    return Path(f"/proc/{pid}/syscall").read_text().split()[1:2] == ["0x0"]


def terminal(handle: int, end: bytes | None) -> bytes:
    """Read from a terminal until `end` is there; with None until its programs are gone, which Linux tells by EIO."""
    said = b""
    while end is None or end not in said:
        try:
            said += os.read(handle, 4096)
        except OSError:
            assert end is None, said.decode()
            break
    return said
