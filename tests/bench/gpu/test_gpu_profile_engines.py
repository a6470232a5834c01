"""An engine under load is profiled once, through what vLLM's own server answers."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest

from kvstrata.paths import PROJECT

SCRIPT = PROJECT / "benchmarks" / "gpu" / "profile_engines.py"


class Engine(ThreadingHTTPServer):
    """What vLLM answers: how much runs, and its profiler."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.running = 0
        self.asked: list[str] = []
        self.code = 200


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        engine = self.server
        assert isinstance(engine, Engine)
        self._answer(200, f'# TYPE x gauge\nvllm:num_requests_running{{engine="0"}} {engine.running}.0\n')

    def do_POST(self) -> None:
        engine = self.server
        assert isinstance(engine, Engine)
        engine.asked.append(self.path)
        self._answer(engine.code, "")

    def _answer(self, code: int, text: str) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine()
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("profile_engines", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def proc(folder: Path, port: int, *, program: str = "vllm.entrypoints.cli.main") -> Path:
    """A /proc with one engine of that port, process 7, and what is none."""
    config = folder / "vllm.yaml"
    config.write_text(f"model: m\nport: {port}\n")
    for pid, words in (
        ("7", ["python", "-m", program, "serve", "--config", str(config)]),
        ("8", ["sleep", "--config"]),
    ):
        (folder / "proc" / pid).mkdir(parents=True)
        (folder / "proc" / pid / "cmdline").write_text("\0".join(words) + "\0")
    (folder / "proc" / "self").mkdir()
    return folder / "proc"


def test_engines_are_found_by_the_file_that_they_were_started_with(module: ModuleType, tmp_path: Path) -> None:
    assert module.engines(proc(tmp_path, 4711)) == {7: 4711}


def test_another_program_is_no_engine(module: ModuleType, tmp_path: Path) -> None:
    assert module.engines(proc(tmp_path, 4711, program="other")) == {}


def test_an_engine_is_profiled_once_it_runs_so_many_requests(
    module: ModuleType,
    tmp_path: Path,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(module, "PROC", proc(tmp_path, engine.server_port))
    monkeypatch.setattr(module, "engines", lambda found=module.engines: found(module.PROC))
    monkeypatch.setattr(module, "EVERY_S", 0.02)
    watched = module.PROC / "99"
    watched.mkdir()
    ended = threading.Thread(target=module.main, args=(["99", "0.05", "3"],))
    ended.start()
    engine.running = 2
    ended.join(0.2)
    assert engine.asked == []
    engine.running = 3
    while len(engine.asked) < 2:
        assert ended.is_alive()
        ended.join(0.02)
    ended.join(0.2)
    watched.rmdir()
    ended.join(10)
    assert not ended.is_alive()
    assert engine.asked == ["/start_profile", "/stop_profile"]
    assert f"port {engine.server_port}, process 7: profiled for 0.05 s" in capsys.readouterr().out


def test_an_engine_without_the_profiler_is_told(
    module: ModuleType, tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.running, engine.code = 9, 404
    with subprocess.Popen(["sleep", "60"]) as watched:
        folder = proc(tmp_path, engine.server_port) / str(watched.pid)
        folder.symlink_to(f"/proc/{watched.pid}")
        code = (
            f"import sys; sys.argv = ['x']; sys.path.insert(0, {str(SCRIPT.parent)!r}); import profile_engines as p; "
        )
        code += f"from pathlib import Path; p.PROC = Path({str(folder.parent)!r}); found = p.engines; "
        code += f"p.engines = lambda: found(p.PROC); sys.exit(p.main(['{watched.pid}', '0.01']))"
        with subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
        ) as one:
            assert one.stdout is not None
            assert "NOT PROFILED: HTTP Error 404" in one.stdout.readline()
            watched.kill()
            watched.wait()
            assert one.wait(20) == 1
