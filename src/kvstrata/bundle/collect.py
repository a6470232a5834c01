"""Gather what a site wants in its bundle, downloading what is not in the cache yet."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kvstrata.artifacts import binary, release
from kvstrata.artifacts.lock import LockError, read_lock
from kvstrata.artifacts.wheelhouse import DownloadError
from kvstrata.bundle import controller, sources, trees
from kvstrata.bundle.sources import Source
from kvstrata.bundle.standalone import BundleError

NEVER_IN_IT = (
    "packages of the nodes' distribution (Python itself, rsync, nginx, etcd, nftables, keepalived) and NVIDIA's driver",
    "Python 3.12 and ssh for the controller",
    "images and packages of the lab",
)
"""What no bundle holds; the manifest says so."""


@dataclass(frozen=True)
class Wanted:
    """What is to be in a bundle beside the project."""

    wheelhouses: Sequence[str]
    """Names from artifacts.lock.yml."""
    models: Sequence[Path] = ()
    """Folders of models."""
    kvrocks: Path | None = None
    """A Kvrocks binary; None takes what the cache or the lock has."""
    controller: bool = True
    """The controller's own wheels."""
    trees: Sequence[Path] = ()
    """Folders of Python packages."""
    gpu_arch: int | None = None
    """Keep the device code for this GPU architecture alone in the trees."""


@dataclass
class Gathered:
    """The files, and what the manifest says of them."""

    files: list[Source]
    holds: dict[str, Any] = field(default_factory=dict)
    not_in_it: list[str] = field(default_factory=list)

    def about(self, checkout: Path) -> dict[str, Any]:
        """Return the fields for the manifest."""
        return {
            "project": sources.state(checkout),
            "holds": self.holds,
            "not_in_it": [*self.not_in_it, *NEVER_IN_IT],
        }


def gather(wanted: Wanted, checkout: Path, cache: Path) -> Gathered:
    """Return everything that is wanted.

    Raises:
        BundleError: something cannot be had; the message says what.
    """
    found = Gathered(sources.project(checkout))
    try:
        lock = read_lock(checkout / "artifacts.lock.yml")
        for name in wanted.wheelhouses:
            house = lock.wheelhouse(name)
            prepared = release.prepare(house, checkout, cache)
            found.files += sources.wheels(house, cache)
            found.files += sources.in_cache(Path(prepared.package), cache)
            found.holds.setdefault("wheelhouses", {})[name] = {"release": prepared.id, "python": house.python}
        kvrocks = binary.resolve(wanted.kvrocks or cache / "bin" / "kvrocks", lock.kvrocks, cache)
    except (LockError, DownloadError, subprocess.CalledProcessError, *binary.ArtifactError) as error:
        raise BundleError(str(error)) from error
    if kvrocks.path is None:
        if wanted.kvrocks is not None:
            raise BundleError(f"--kvrocks {wanted.kvrocks}: no such file")
        found.not_in_it.append(f"Kvrocks: {kvrocks.reason}")
    elif Path(kvrocks.path).is_relative_to(cache):
        found.files += sources.in_cache(Path(kvrocks.path), cache)
    else:
        found.files.append(Source(f"{sources.CACHE_FOLDER}/bin/kvrocks", Path(kvrocks.path)))
    found.holds["kvrocks"] = kvrocks.sha256
    for folder in wanted.models:
        found.files += sources.model(folder)
    found.holds["models"] = [folder.absolute().name for folder in wanted.models]
    for folder in wanted.trees:
        packed = trees.pack(folder, cache, wanted.gpu_arch)
        name = folder.absolute().name
        found.files += [Source(f"{trees.TREES_FOLDER}/{name}/{file.name}", file) for file in trees.archives(packed)]
        found.holds.setdefault("trees", {})[name] = packed.about
    if not wanted.wheelhouses:
        found.not_in_it.append("wheels of the nodes: no --wheelhouse")
    if wanted.controller:
        found.files += sources.tree(controller.ensure(checkout, cache), sources.CONTROLLER_FOLDER)
    else:
        found.not_in_it.append("the wheels of the controller: --no-controller")
    found.holds["controller"] = wanted.controller
    found.files = sources.checked(found.files)
    return found
