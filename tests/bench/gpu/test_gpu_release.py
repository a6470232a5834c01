"""A release of carried packages: what units and the verifier's probe start finds them, without any variable."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from kvstrata.paths import PROJECT

# As vLLM does: it spawns a process, which reads the program's file again.
PROGRAM = """
import multiprocessing, sys

def main():
    process = multiprocessing.get_context("spawn").Process(target=print, args=("spawned",))
    process.start()
    process.join()
    print("main of", __name__, *sys.argv[1:])
"""


def made(tmp_path: Path) -> tuple[Path, list[str]]:
    for name in ("vllm/entrypoints/cli/main", "vllm_router/launch_router"):
        file = tmp_path / "carried" / f"{name}.py"
        file.parent.mkdir(parents=True)
        file.write_text(PROGRAM)
    folder = tmp_path / "opt" / "current"
    done = subprocess.run(
        [sys.executable, str(PROJECT / "benchmarks" / "gpu" / "release.py"), str(folder)],
        env={**os.environ, "PYTHONPATH": f"{tmp_path / 'carried'}:{PROJECT / 'src'}"},
        capture_output=True,
        text=True,
        check=True,
    )
    return folder, done.stdout.splitlines()


def test_programs_find_what_was_carried_and_may_spawn(tmp_path: Path) -> None:
    folder, named = made(tmp_path)
    assert named[0] == str(tmp_path / "carried")
    for program, module in (("vllm", "vllm.entrypoints.cli.main"), ("vllm-router", "vllm_router.launch_router")):
        done = subprocess.run([folder / "bin" / program, "a"], env={}, cwd="/", capture_output=True, text=True)
        assert done.stdout.splitlines() == ["spawned", f"main of {module} a"], done.stderr


def test_an_isolated_python_finds_them_and_a_kvstrata_of_its_own(tmp_path: Path) -> None:
    folder, named = made(tmp_path)
    words = "import kvstrata.l2.probe as probe, vllm_router, yaml; print(probe.__file__, vllm_router.__path__[0])"
    done = subprocess.run(
        [folder / "bin" / "python", "-I", "-c", words], env={}, cwd="/", capture_output=True, text=True
    )
    probe, router = done.stdout.split()
    assert Path(probe).is_relative_to(folder)
    assert router == str(tmp_path / "carried" / "vllm_router")
    assert not {str(PROJECT / "src"), str(PROJECT / "benchmarks" / "gpu")} & set(named)
