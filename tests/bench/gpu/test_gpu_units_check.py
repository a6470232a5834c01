"""The check of started units, against an engine that counts what it has seen and a process that stands for it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from kvstrata.paths import PROJECT


class Rig:
    """An engine, a router before it, and what the unit runner would write of both."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: set[str] = set()
        self.asked: list[Any] = []
        self.caches = True
        self.tries = 1
        """How often the killed engine is started until it stays."""
        self.servers = [self._server(), self._server()]
        self.engine, self.router = (server.server_address[1] for server in self.servers)
        model = folder / "model"
        model.mkdir()
        (model / "config.json").write_text('{"vocab_size": 1000}')
        etc = folder / "rendered" / "etc"
        (etc / "kvstrata" / "vllm").mkdir(parents=True)
        (etc / "systemd" / "system").mkdir(parents=True)
        config = {"host": "127.0.0.1", "port": self.engine, "served-model-name": ["m"], "model": str(model)}
        (etc / "kvstrata" / "vllm" / "0.yaml").write_text(json.dumps({**config, "max-model-len": 164}))
        words = f"--host 127.0.0.1 \\\n    --port {self.router} \\\n    --prometheus-port 9100"
        (etc / "systemd/system/vllm-router.service").write_text(f"ExecStart=/bin/vllm-router \\\n    {words}\n")
        (folder / "state").mkdir()
        self.process = subprocess.Popen(["sleep", "60"])
        self.told("vllm@0.service", self.process.pid, 0)
        self.told("lmcache.service", self.process.pid, 0)
        threading.Thread(target=self._restart, daemon=True).start()

    def told(self, unit: str, pid: int, restarts: int) -> None:
        made = self.folder / "state" / "made"
        made.write_text(json.dumps({"main_pid": pid, "restarts": restarts, "result": "signal KILL"}))
        made.rename(self.folder / "state" / f"{unit}.json")

    def check(self, step: str, router: str = "yes") -> tuple[int, dict[str, Any]]:
        output = self.folder / "units.json"
        words = [sys.executable, str(PROJECT / "benchmarks/gpu/units_check.py"), step, "--router", router]
        words += ["--state", str(self.folder / "state"), "--rendered", str(self.folder / "rendered")]
        done = subprocess.run([*words, "--seconds", "10", "--output", str(output)], timeout=30)
        return done.returncode, json.loads(output.read_text()) if output.exists() else {}

    def close(self) -> None:
        for server in self.servers:
            server.shutdown()
            server.server_close()
        self.process.kill()
        self.process.wait()

    def _restart(self) -> None:
        self.process.wait()
        self.told("vllm@0.service", 1, self.tries)

    def _server(self) -> ThreadingHTTPServer:
        rig = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer({})

            def do_POST(self) -> None:
                prompt = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["prompt"]
                key = json.dumps(prompt)
                cached = len(prompt) - 1 if rig.caches and key in rig.seen else 0
                rig.seen.add(key)
                rig.asked.append(self.connection.getsockname()[1])
                usage = {"prompt_tokens_details": {"cached_tokens": cached}}
                self._answer({"usage": usage, "choices": [{"text": f"of {sum(prompt)}"}]})

            def log_message(self, *_: object) -> None:
                pass

            def _answer(self, document: object) -> None:
                body = json.dumps(document).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def test_it_serves_through_the_router_and_comes_back_after_a_kill(rig: Rig) -> None:
    code, found = rig.check("serve")
    assert (code, found["ok"], found["steps"]) == (0, False, {"serve": "ok"})
    assert rig.asked == [rig.router] * 5
    assert (found["again"]["cached"], set(found["processes"])) == (99, {"vllm@0.service", "lmcache.service"})
    code, found = rig.check("restart")
    assert (code, found["ok"], found["steps"]) == (0, True, {"serve": "ok", "restart": "ok"})
    assert rig.asked[5:] == [rig.engine, rig.router]
    assert (found["restarts"], found["same_text"]) == ({"vllm@0.service": 1, "lmcache.service": 0}, True)
    assert found["again"]["cached"] == 99


def test_an_engine_that_caches_nothing_is_no_success_and_is_not_killed(rig: Rig) -> None:
    rig.caches = False
    code, found = rig.check("serve", router="no")
    assert (code, rig.asked) == (1, [rig.engine] * 5)
    assert "0 of 100 tokens cached" in found["steps"]["serve"]
    assert rig.check("restart", router="no") == (1, found)
    assert rig.process.poll() is None


def test_without_what_serving_wrote_nothing_is_killed(rig: Rig) -> None:
    assert rig.check("restart") == (1, {})
    assert rig.process.poll() is None


def test_an_engine_that_ends_while_it_starts_is_not_waited_for(rig: Rig) -> None:
    rig.told("vllm@0.service", 0, 1)
    code, found = rig.check("serve")
    assert code == 1
    assert "vllm@0.service ended (signal KILL), 1 restarts; allowed here: 0" in found["steps"]["serve"]
    assert found["units"]["vllm@0.service"]["restarts"] == 1


def test_more_than_one_start_after_the_kill_is_a_fault_that_says_when_it_was_back(rig: Rig) -> None:
    rig.tries = 3
    rig.check("serve")
    code, found = rig.check("restart")
    assert (code, found["ok"]) == (1, False)
    assert "restarts are {'vllm@0.service': 3, 'lmcache.service': 0}" in found["steps"]["restart"]
    assert found["after_restart"]["cached"] == 99
