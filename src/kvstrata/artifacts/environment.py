"""The nodes' Python environment on the controller: for tests and benchmarks that need LMCache itself."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from kvstrata.artifacts import wheelhouse
from kvstrata.artifacts.lock import Wheelhouse

COMPLETE = ".complete"


def ensure(house: Wheelhouse, cache: Path) -> tuple[Path, bool]:
    """Build the environment once; return its python and whether it was built now.

    Holds the wheels of the lock and not kvstrata itself: run it with PYTHONPATH on the checkout's src.

    Raises:
        wheelhouse.DownloadError: if a wheel cannot be had.
        subprocess.CalledProcessError: if it cannot be installed, for lack of the nodes' Python among other things.
    """
    wheels, _ = wheelhouse.ensure(house, cache)
    folder = _folder(house, cache)
    python = folder / "bin" / "python"
    if (folder / COMPLETE).exists():
        return python, False
    shutil.rmtree(folder, ignore_errors=True)
    print(f"environment {house.name}: installing into {folder}", flush=True)
    # uv's cache lies beside it, so that what it unpacks is linked and not copied.
    unpacked = folder.with_name(folder.name + ".unpacked")
    uv = ["uv", "--quiet", "--offline", "--no-config", "--cache-dir", str(unpacked)]
    environ = {**os.environ, "UV_PYTHON_DOWNLOADS": "automatic"}
    subprocess.run(
        [*(word for word in uv if word != "--offline"), "venv", "--python", _interpreter(house.python), str(folder)],
        check=True,
        env=environ,
    )
    install = [*uv, "pip", "install", "--python", str(python), "--no-index", "--no-deps", "--require-hashes"]
    subprocess.run([*install, "--find-links", str(wheels), "--requirements", str(house.lock)], check=True)
    shutil.rmtree(unpacked, ignore_errors=True)
    (folder / COMPLETE).touch()
    return python, True


def exists(house: Wheelhouse, cache: Path) -> bool:
    """Return whether the environment is there already."""
    return (_folder(house, cache) / COMPLETE).exists()


def _folder(house: Wheelhouse, cache: Path) -> Path:
    return cache / "environment" / wheelhouse.folder(house, cache).name


def _interpreter(version: str) -> str:
    """Return a Python of that version, or the version itself, for uv to find or fetch.

    pyenv's shims answer to every name and then refuse, so each candidate is asked.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [
        f"/usr/bin/python{version}",
        *map(str, sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}"))),
    ]
    for candidate in candidates:
        if Path(candidate).exists() and subprocess.run([candidate, "-c", ""], check=False).returncode == 0:
            return candidate
    return version
