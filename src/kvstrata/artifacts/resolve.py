"""Write a wheelhouse's lock: resolve its requirements from the package index's metadata, and pin one wheel of each.

No wheel is downloaded: the index tells names, tags, sizes and checksums.
"""

from __future__ import annotations

import subprocess
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

from kvstrata.artifacts.lock import LockError, Wheelhouse

MACHINE = "x86_64"
"""Of the nodes that locks are written for; its spelling is that of wheel tags."""


@dataclass(frozen=True)
class Pin:
    """One line of a lock."""

    name: str
    version: str
    sha256: str
    wheel: str
    size: int
    """Bytes, 0 where the index does not tell."""

    @property
    def line(self) -> str:
        """The requirement, as pip reads it."""
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"


def resolve(house: Wheelhouse, requirements: Path, left_out: Sequence[str], uv: str = "uv") -> list[Pin]:
    """Return what `requirements` needs on the nodes of `house`, by name.

    Args:
        house: whose Python and platforms count; its lock need not exist.
        requirements: what is wanted.
        left_out: distributions that are asked for by others and are not to be in it.
        uv: the program that resolves.

    Raises:
        subprocess.CalledProcessError: if there is no solution; uv has said why.
        LockError: if a distribution has no wheel for the nodes.
    """
    with tempfile.TemporaryDirectory() as scratch:
        overrides, lock = Path(scratch, "overrides.txt"), Path(scratch, "pylock.toml")
        overrides.write_text("".join(f"{name} ; sys_platform == 'never'\n" for name in left_out))
        command = [uv, "pip", "compile", "--quiet", "--no-header", "--python-version", house.python]
        command += ["--python-platform", f"{MACHINE}-{house.platforms[0]}", "--only-binary", ":all:"]
        subprocess.run(
            [*command, "--override", str(overrides), "--output-file", str(lock), str(requirements)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        document = tomllib.loads(lock.read_text())
    order = {tag: rank for rank, tag in enumerate(node_tags(house))}
    return sorted((pin(package, order) for package in document["packages"]), key=lambda found: found.name)


def node_tags(house: Wheelhouse) -> Iterator[Tag]:
    """Return the tags of wheels that the nodes take, the best first."""
    version = tuple(map(int, house.python.split(".")))
    platforms = [f"{name}_{MACHINE}" for name in house.platforms]
    interpreter = f"cp{version[0]}{version[1]}"
    yield from cpython_tags(version, [interpreter], platforms)
    yield from compatible_tags(version, interpreter, platforms)


def pin(package: Mapping[str, Any], order: Mapping[Tag, int]) -> Pin:
    """Return the pin of one package of a pylock.toml (PEP 751): its best wheel.

    Raises:
        LockError: if no wheel has a tag of `order`.
    """
    best: tuple[int, Pin] | None = None
    for wheel in package.get("wheels", []):
        name = wheel.get("name") or unquote(wheel["url"].rsplit("/", 1)[-1])
        ranks = [order[tag] for tag in parse_wheel_filename(name)[3] if tag in order]
        if ranks and (best is None or min(ranks) < best[0]):
            found = Pin(package["name"], package["version"], wheel["hashes"]["sha256"], name, int(wheel.get("size", 0)))
            best = (min(ranks), found)
    if best is None:
        seen = ", ".join(wheel["url"].rsplit("/", 1)[-1] for wheel in package.get("wheels", [])) or "none"
        raise LockError(f"{package['name']} {package['version']} has no wheel for these nodes; it has: {seen}")
    return best[1]


def write(lock: Path, pins: Sequence[Pin]) -> None:
    """Write the lock; the comment that the file begins with stays."""
    old = lock.read_text().splitlines(keepends=True) if lock.exists() else []
    head = [line for line in old if line.startswith("#")]
    lock.write_text("".join(head) + "".join(f"{one.line}\n" for one in pins))
