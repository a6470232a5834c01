"""An engine under load is profiled once, through what vLLM's own server answers."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kvstrata.paths import PROJECT
from tests.verify.fakes.web import Code, WebServer

SCRIPT = PROJECT / "benchmarks" / "gpu" / "profile_engines.py"


class Engine(WebServer):
    """What vLLM answers: how much runs, and its profiler."""

    def __init__(self) -> None:
        super().__init__()
        self.running = 0
        self.asked: list[str] = []
        self.code = 200
        self.routes["/metrics"] = lambda _: (
            f'# TYPE x gauge\nvllm:num_requests_running{{engine="0"}} {self.running}.0\n'
        )
        for path in ("/start_profile", "/stop_profile"):
            self.routes[path] = lambda _, path=path: self._profiled(path)  # type: ignore[misc]

    def _profiled(self, path: str) -> Code:
        self.asked.append(path)
        return Code(self.code)


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as made:
        yield made


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


def test_engines_are_found_by_the_file_that_they_were_started_with(module: Any, tmp_path: Path) -> None:
    module.PROC = proc(tmp_path, 4711)
    assert module.engines() == {7: 4711}


def test_another_program_is_no_engine(module: Any, tmp_path: Path) -> None:
    module.PROC = proc(tmp_path, 4711, program="other")
    assert module.engines() == {}


class Watching:
    """The script, watching process 99 of that /proc; `ended` returns what it ended with, once that is gone."""

    def __init__(self, module: Any, folder: Path, *words: str) -> None:
        module.PROC, module.EVERY_S = folder, 0.02
        self._watched = folder / "99"
        self._watched.mkdir()
        self._codes: list[int] = []
        self.thread = threading.Thread(target=lambda: self._codes.append(module.main(["99", *words])))
        self.thread.start()

    def ended(self) -> int:
        self._watched.rmdir()
        self.thread.join(10)
        assert not self.thread.is_alive()
        (code,) = self._codes
        return code


def test_an_engine_is_profiled_once_it_runs_so_many_requests(
    module: Any, tmp_path: Path, engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    watching = Watching(module, proc(tmp_path, engine.port), "0.05", "3")
    engine.running = 2
    watching.thread.join(0.2)
    assert engine.asked == []
    engine.running = 3
    while len(engine.asked) < 2:
        assert watching.thread.is_alive()
        watching.thread.join(0.02)
    watching.thread.join(0.2)
    assert watching.ended() == 0
    assert engine.asked == ["/start_profile", "/stop_profile"]
    assert f"port {engine.port}, process 7: profiled for 0.05 s" in capsys.readouterr().out


def test_an_engine_without_the_profiler_is_told(
    module: Any, tmp_path: Path, engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.running, engine.code = 9, 404
    watching = Watching(module, proc(tmp_path, engine.port), "0.01")
    while not engine.asked:
        assert watching.thread.is_alive()
        watching.thread.join(0.02)
    assert watching.ended() == 1
    assert engine.asked == ["/start_profile"]
    assert "NOT PROFILED: HTTP Error 404" in capsys.readouterr().out
