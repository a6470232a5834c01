"""A release: the wheels of a lock and kvstrata's own node package, under one id."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kvstrata.artifacts import wheelhouse
from kvstrata.artifacts.lock import Wheelhouse


@dataclass(frozen=True)
class Release:
    """What the runtime role installs."""

    id: str
    """Names the folder under /opt/kvstrata/releases; any change of a wheel or of the node's code changes it."""
    python: str
    wheels: str
    """Folder on the controller with every wheel of the lock."""
    lock: str
    """The lock on the controller."""
    package: str
    """kvstrata's own wheel on the controller."""
    changed: bool
    """Whether anything had to be downloaded or built."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return asdict(self)


def release_id(house: Wheelhouse, project: Path) -> str:
    """Return the id of the release: wheelhouse name and 12 hex digits over the lock and the node package's sources."""
    content = hashlib.sha256(house.lock.read_bytes())
    for source in node_sources(project):
        content.update(source.relative_to(project).as_posix().encode() + b"\0" + source.read_bytes() + b"\0")
    return f"{house.name}-{content.hexdigest()[:12]}"


def node_sources(project: Path) -> list[Path]:
    """Return the files that run on nodes, in a fixed order."""
    package = project / "src" / "kvstrata"
    sides = (sorted((package / side).rglob("*.py")) for side in ("l2", "node"))
    return [package / "__init__.py", *(path for paths in sides for path in paths)]


def prepare(house: Wheelhouse, project: Path, cache: Path) -> Release:
    """Download the wheels and build the node package, both once; return where they are.

    Raises:
        wheelhouse.DownloadError: if a wheel cannot be had.
        subprocess.CalledProcessError: if the node package does not build.
    """
    identity = release_id(house, project)
    wheels, downloaded = wheelhouse.ensure(house, cache)
    output = cache / "package" / identity
    built = not list(output.glob("kvstrata-*.whl"))
    if built:
        subprocess.run(["uv", "build", "--quiet", "--wheel", "--out-dir", str(output), str(project)], check=True)
    package = next(output.glob("kvstrata-*.whl"))
    return Release(identity, house.python, str(wheels), str(house.lock), str(package), downloaded or built)
