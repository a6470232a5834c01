"""The lock file artifacts.lock.yml, typed and checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

SCHEMA = 1
_SHA256 = re.compile(r"[0-9a-f]{64}")


class LockError(ValueError):
    """artifacts.lock.yml is not what it must be; the message names the entry, what it holds and what is allowed."""


@dataclass(frozen=True)
class Wheelhouse:
    """A set of wheels for one kind of node."""

    name: str
    lock: Path
    """Requirements with a version and a sha256 for each wheel, complete without dependency resolution."""
    python: str
    """The node's Python, as "3.11"."""
    platforms: tuple[str, ...]
    """Wheel platform tags without the architecture, as "manylinux_2_28"."""
    extra_index: str | None
    """A second package index, asked only when the configured one lacks a wheel."""


@dataclass(frozen=True)
class Binary:
    """A download of one file."""

    version: str
    url: str | None
    sha256: str | None


@dataclass(frozen=True)
class Lock:
    """The whole lock file."""

    wheelhouses: Mapping[str, Wheelhouse]
    kvrocks: Binary

    def wheelhouse(self, name: str) -> Wheelhouse:
        """Return a wheelhouse by name.

        Raises:
            LockError: if there is none of that name.
        """
        if name not in self.wheelhouses:
            known = ", ".join(sorted(self.wheelhouses)) or "none"
            raise LockError(f"runtime_wheelhouse is {name!r}; artifacts.lock.yml has: {known}")
        return self.wheelhouses[name]


def read_lock(path: Path) -> Lock:
    """Read artifacts.lock.yml.

    Raises:
        LockError: if an entry is missing or of the wrong form.
        OSError: if the file cannot be read.
    """
    document = yaml.safe_load(path.read_text())
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        seen = document.get("schema") if isinstance(document, dict) else document
        raise LockError(f"{path}: schema is {seen!r}, allowed is {SCHEMA}")
    try:
        houses = {name: _wheelhouse(name, entry, path.parent) for name, entry in document["wheelhouses"].items()}
        return Lock(houses, _binary("kvrocks", document["kvrocks"]))
    except KeyError as missing:
        raise LockError(f"{path}: the entry {missing} is missing") from missing


def _wheelhouse(name: str, entry: Mapping[str, Any], base: Path) -> Wheelhouse:
    return Wheelhouse(
        name=name,
        lock=base / entry["lock"],
        python=str(entry["python"]),
        platforms=tuple(entry["platforms"]),
        extra_index=entry.get("extra_index"),
    )


def _binary(name: str, entry: Mapping[str, Any]) -> Binary:
    sha256 = entry["sha256"]
    if sha256 is not None and not _SHA256.fullmatch(str(sha256)):
        raise LockError(f"{name}.sha256 is {sha256!r}, allowed are 64 hexadecimal digits or null")
    return Binary(version=str(entry["version"]), url=entry["url"], sha256=sha256)
