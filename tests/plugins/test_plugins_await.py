"""kvstrata_await against a real HTTP endpoint, with a systemctl and a journalctl of the test's own."""

from __future__ import annotations

import re
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.plugins.modules import run_module

UNIT = "vllm@0.service"

# Prints what the file `state` says; with a file `dying`, each look finds one more restart.
SYSTEMCTL = """#!/bin/sh
here=$(dirname "$0")
echo "$@" >> "$here/asked"
n=$(cat "$here/restarts")
[ -e "$here/dying" ] && echo $((n + 1)) > "$here/restarts"
echo "ActiveState=$(cat "$here/state")"
echo "NRestarts=$n"
"""
JOURNALCTL = """#!/bin/sh
echo "asked for $@"
echo "ValueError: no such model"
"""


class Health(ThreadingHTTPServer):
    """Answers 503 `busy` times, then 200."""

    def __init__(self, busy: int = 0) -> None:
        self.busy = busy
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/health"


class _Handler(BaseHTTPRequestHandler):
    server: Health

    def do_GET(self) -> None:
        self.send_response(503 if self.server.busy > 0 else 200)
        self.server.busy -= 1
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def health() -> Iterator[Health]:
    server = Health()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def systemd(tmp_path: Path) -> Path:
    """Return a folder with the commands and with their state: an active unit that never died."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in {"systemctl": SYSTEMCTL, "journalctl": JOURNALCTL}.items():
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    (folder / "state").write_text("active\n")
    (folder / "restarts").write_text("7\n")
    return folder


def wait(url: str, systemd: Path, *, check_mode: bool = False, **changes: Any) -> tuple[dict[str, Any], float]:
    """Run the module; return its result and the seconds it took."""
    started = time.monotonic()
    args = {"url": url, "unit": UNIT, "timeout": 60, **changes}
    return run_module("kvstrata_await", args, check_mode=check_mode, path=systemd), time.monotonic() - started


def test_a_healthy_unit_is_no_change(health: Health, systemd: Path) -> None:
    result, _ = wait(health.url, systemd)
    assert result["changed"] is False
    assert "failed" not in result
    assert UNIT in (systemd / "asked").read_text()


def test_a_unit_that_is_still_starting_is_awaited(health: Health, systemd: Path) -> None:
    health.busy = 2
    (systemd / "state").write_text("activating\n")
    result, _ = wait(health.url, systemd)
    assert "failed" not in result
    assert health.busy < 0


def test_earlier_restarts_are_not_held_against_a_unit(health: Health, systemd: Path) -> None:
    health.busy = 1
    (systemd / "restarts").write_text("100\n")
    assert "failed" not in wait(health.url, systemd)[0]


def test_a_unit_that_never_gets_healthy_fails_with_what_was_seen_and_its_journal(health: Health, systemd: Path) -> None:
    health.busy = 10_000
    result, _ = wait(health.url, systemd, timeout=1)
    assert result["failed"]
    assert re.fullmatch(rf"{UNIT} is active after \d+ s and 0 restarts; {health.url}: HTTP 503", result["msg"])
    assert "ValueError: no such model" in result["journal"]
    assert f"-u {UNIT}" in result["journal"][0]


def test_a_unit_that_systemd_gave_up_on_ends_the_wait_at_once(health: Health, systemd: Path) -> None:
    health.busy = 10_000
    (systemd / "state").write_text("failed\n")
    result, seconds = wait(health.url, systemd)
    assert result["failed"]
    assert result["msg"].startswith(f"{UNIT} is failed after ")
    assert "ValueError: no such model" in result["journal"]
    assert seconds < 40


def test_a_unit_that_keeps_dying_ends_the_wait_early(health: Health, systemd: Path) -> None:
    health.busy = 10_000
    (systemd / "dying").touch()
    result, seconds = wait(health.url, systemd, restarts=3)
    assert result["failed"]
    assert "and 3 restarts" in result["msg"]
    assert seconds < 40


def test_a_port_where_nobody_listens_is_said(systemd: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/health"
    result, _ = wait(url, systemd, timeout=0)
    assert result["failed"]
    assert "refused" in result["msg"]


def test_something_else_than_http_is_said_and_no_traceback(systemd: Path) -> None:
    class Zmq(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(4096)
            self.request.sendall(b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Zmq) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        result, _ = wait(f"http://127.0.0.1:{server.server_address[1]}/health", systemd, timeout=0)
        server.shutdown()
    assert result["failed"]
    assert "BadStatusLine" in result["msg"]


def test_check_mode_does_not_wait(health: Health, systemd: Path) -> None:
    health.busy = 10_000
    result, seconds = wait(health.url, systemd, check_mode=True)
    assert "failed" not in result
    assert result["msg"].startswith("NOT CHECKED in check mode: http://127.0.0.1:")
    assert seconds < 40
