"""Download a wheelhouse once, for nodes that install from it offline."""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from kvstrata.artifacts.lock import Wheelhouse

COMPLETE = ".complete"


class DownloadError(RuntimeError):
    """A wheelhouse could not be downloaded whole."""


def digest(house: Wheelhouse) -> str:
    """Return the first 12 hex digits of the lock's sha256: the wheelhouse's name in the cache."""
    return hashlib.sha256(house.lock.read_bytes()).hexdigest()[:12]


def folder(house: Wheelhouse, cache: Path) -> Path:
    """Return where the wheels of `house` lie in the cache, downloaded or not."""
    return cache / "wheelhouse" / f"{house.name}-{digest(house)}"


def is_complete(house: Wheelhouse, cache: Path) -> bool:
    """Tell whether every wheel of the lock is in the cache."""
    return (folder(house, cache) / COMPLETE).exists()


def ensure(house: Wheelhouse, cache: Path) -> tuple[Path, bool]:
    """Download what is missing; return the folder and whether anything was downloaded.

    pip checks every wheel against the lock's sha256. An interrupted download leaves no folder of that name.

    Raises:
        DownloadError: if pip cannot get every wheel, with the indexes that were asked.
    """
    target = folder(house, cache)
    if is_complete(house, cache):
        return target, False
    partial = target.with_name(target.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    attempts = [[]] if house.extra_index is None else [[], ["--extra-index-url", house.extra_index]]
    for extra in attempts:
        print(
            f"wheelhouse {house.name}: downloading into {target}" + (f" with {extra[1]}" if extra else ""), flush=True
        )
        if subprocess.run(pip_download(house, partial, extra), check=False).returncode == 0:
            break
    else:
        asked = "the configured package index" + (f" and {house.extra_index}" if house.extra_index else "")
        raise DownloadError(f"wheelhouse {house.name}: {house.lock.name} could not be downloaded whole; asked: {asked}")
    (partial / COMPLETE).touch()
    if target.exists():
        shutil.rmtree(target)
    partial.rename(target)
    return target, True


def pip_download(house: Wheelhouse, destination: Path, extra: list[str]) -> list[str]:
    """Return the pip command that downloads `house` for the node's Python, whatever the controller's is."""
    tag = "cp" + house.python.replace(".", "")
    machine = platform.machine()
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
    command += ["--only-binary=:all:", "--python-version", house.python, "--implementation", "cp"]
    for abi in (tag, "abi3", "none"):
        command += ["--abi", abi]
    for name in house.platforms:
        command += ["--platform", f"{name}_{machine}"]
    return [*command, *extra, "--requirement", str(house.lock), "--dest", str(destination)]
