"""The lock file artifacts.lock.yml, typed and checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kvstrata.artifacts.kinds import FILE, IMAGE, KINDS
from kvstrata.artifacts.oci import is_reference

SCHEMA = 1
_PYTHON = re.compile(r"3\.\d+")
_PLATFORM = "linux/amd64"
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
    """One binary, as a download of its own or inside of one."""

    version: str
    """What the binary says of itself."""
    url: str | None
    sha256: str | None
    """Of the download; of an image, the digest of the layer that holds the binary."""
    kind: str = FILE
    path: str = ""
    """Where the binary is in the download."""
    binary_sha256: str | None = None
    platform: str = _PLATFORM
    """For which an image's layer is taken."""

    @property
    def file_sha256(self) -> str | None:
        """The checksum of the binary itself."""
        return self.sha256 if self.kind == FILE else self.binary_sha256


@dataclass(frozen=True)
class Keyring:
    """The public key that a package repository is signed with."""

    url: str
    sha256: str | None
    """Null until somebody entered what they trust; then nothing is downloaded."""


@dataclass(frozen=True)
class DriverRepository:
    """NVIDIA's network repository of drivers."""

    url: str
    """Without the folder of a system and an architecture."""
    keyrings: Mapping[str, Keyring]
    """By the repository's folder for a system, as "debian12"."""


@dataclass(frozen=True)
class Lock:
    """The whole lock file."""

    wheelhouses: Mapping[str, Wheelhouse]
    kvrocks: Binary
    nvidia: DriverRepository

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
    try:
        document = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise LockError(f"{path} is no YAML: {error}") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        seen = document.get("schema") if isinstance(document, dict) else document
        raise LockError(f"{path}: schema is {seen!r}, allowed is {SCHEMA}")
    try:
        entries = _mapping("wheelhouses", document["wheelhouses"])
        houses = {name: _wheelhouse(name, entry, path.parent) for name, entry in entries.items()}
        return Lock(houses, _binary("kvrocks", document["kvrocks"]), _nvidia(document.get("nvidia")))
    except KeyError as missing:
        raise LockError(f"{path}: the entry {missing} is missing") from missing


def _wheelhouse(name: str, value: object, base: Path) -> Wheelhouse:
    where = f"wheelhouses.{name}"
    entry = _mapping(where, value)
    python, platforms = entry["python"], entry["platforms"]
    # A bare 3.10 is the number 3.1 to YAML, so only text is taken.
    if not isinstance(python, str) or not _PYTHON.fullmatch(python):
        raise LockError(f'{where}.python is {python!r}, allowed is a version in quotes, as "3.11"')
    if not isinstance(platforms, list):
        raise LockError(f"{where}.platforms is {platforms!r}, allowed is a list of tags")
    return Wheelhouse(
        name=name,
        lock=base / entry["lock"],
        python=python,
        platforms=tuple(platforms),
        extra_index=entry.get("extra_index"),
    )


def _nvidia(value: object) -> DriverRepository:
    """Return the entry; a lock without one has no keyring, and so no network repository."""
    if value is None:
        return DriverRepository("", {})
    entry = _mapping("nvidia", value)
    keyrings = {}
    for system, one in _mapping("nvidia.keyrings", entry["keyrings"]).items():
        where = f"nvidia.keyrings.{system}"
        keyring = _mapping(where, one)
        keyrings[system] = Keyring(str(keyring["url"]), _sha256(f"{where}.sha256", keyring["sha256"]))
    return DriverRepository(str(entry["url"]), keyrings)


def _mapping(name: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise LockError(f"{name} is {value!r}, allowed is a mapping")
    return value


def _binary(name: str, value: object) -> Binary:
    entry = _mapping(name, value)
    kind, path, url = entry.get("kind", FILE), entry.get("path") or "", entry["url"]
    if kind not in KINDS:
        raise LockError(f"{name}.kind is {kind!r}, allowed are: {', '.join(KINDS)}")
    if kind == IMAGE and url is not None and not is_reference(str(url)):
        raise LockError(
            f"{name}.url is {url!r}, allowed is an image, as https://registry-1.docker.io/apache/kvrocks:TAG"
        )
    if kind != FILE and url is not None and (not path or ".." in str(path).split("/")):
        raise LockError(f"{name}.path is {path!r}, allowed is the path of a file in the {kind}, without ..")
    return Binary(
        version=str(entry["version"]),
        url=url,
        sha256=_sha256(f"{name}.sha256", entry["sha256"]),
        kind=kind,
        path=str(path),
        binary_sha256=_sha256(f"{name}.binary_sha256", entry.get("binary_sha256")),
        platform=str(entry.get("platform", _PLATFORM)),
    )


def _sha256(name: str, value: object) -> str | None:
    if value is not None and not _SHA256.fullmatch(str(value)):
        raise LockError(f"{name} is {value!r}, allowed are 64 hexadecimal digits or null")
    return None if value is None else str(value)
