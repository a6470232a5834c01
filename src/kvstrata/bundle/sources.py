"""What goes into a bundle, and under which path: checkout, cache, models, the controller's own wheels."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kvstrata.artifacts import wheelhouse
from kvstrata.artifacts.lock import Wheelhouse
from kvstrata.bundle.standalone import BundleError, unsafe

PROJECT_FOLDER, CACHE_FOLDER, MODELS_FOLDER, CONTROLLER_FOLDER = "project", "cache", "models", "controller"

# Of a checkout without git: what tools leave in it.
_LEFT_BY_TOOLS = frozenset(
    {
        ".git",
        ".venv",
        ".bootstrap",
        ".hypothesis",
        ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache",
        "__pycache__",
        "build",
    }
)


@dataclass(frozen=True)
class Source:
    """One file for the bundle."""

    path: str
    """In the bundle."""
    file: Path
    """On this machine; links are followed."""


def project(checkout: Path) -> list[Source]:
    """Return the files of the checkout as they are on disk: those that git knows, or all where there is no git.

    Raises:
        BundleError: git knows a file that is not there.
    """
    names = _git(checkout, "ls-files", "-z") if (checkout / ".git").exists() else None
    if names is None:
        return list(_below(checkout, PROJECT_FOLDER, _LEFT_BY_TOOLS))
    found = [name for name in names.split("\0") if name]
    missing = [name for name in found if not (checkout / name).exists()]
    if missing:
        raise BundleError(f"{checkout}: {', '.join(missing)} deleted and not committed; commit, or restore")
    return [Source(f"{PROJECT_FOLDER}/{name}", checkout / name) for name in found if not (checkout / name).is_dir()]


def state(checkout: Path) -> dict[str, object]:
    """Return the commit of the checkout, and whether files differ from it; of one without git, neither."""
    commit = _git(checkout, "rev-parse", "HEAD") if (checkout / ".git").exists() else None
    if commit is None:
        return {"commit": None, "changed": None}
    return {
        "commit": commit.strip(),
        "changed": bool(_git(checkout, "status", "--porcelain", "--untracked-files=no")),
    }


def wheels(house: Wheelhouse, cache: Path) -> list[Source]:
    """Return the wheels of a wheelhouse that is in the cache, at the place where a cache has them.

    Raises:
        BundleError: it is not there whole.
    """
    if not wheelhouse.is_complete(house, cache):
        raise BundleError(f"wheelhouse {house.name} is not in {cache}: kvstrata artifacts release {house.name}")
    return in_cache(wheelhouse.folder(house, cache), cache)


def in_cache(path: Path, cache: Path) -> list[Source]:
    """Return a file or a folder of the cache, at the same place in the bundle's cache."""
    inside = f"{CACHE_FOLDER}/{path.relative_to(cache).as_posix()}"
    return list(_below(path, inside)) if path.is_dir() else [Source(inside, path)]


def model(folder: Path) -> list[Source]:
    """Return the files of a model's folder; a link is what it leads to, as in the cache of Hugging Face.

    Raises:
        BundleError: there is no such folder, or no config.json in it.
    """
    if not (folder / "config.json").is_file():
        raise BundleError(f"--model {folder}: no config.json there; allowed: the folder of a model")
    return list(_below(folder, f"{MODELS_FOLDER}/{folder.absolute().name}"))


def tree(folder: Path, inside: str) -> list[Source]:
    """Return all files of a folder, below `inside` in the bundle."""
    return list(_below(folder, inside))


def checked(sources: Iterable[Source]) -> list[Source]:
    """Return the sources by path.

    Raises:
        BundleError: two have the same path, or one has a path that would not be unpacked.
    """
    found = sorted(sources, key=lambda source: source.path)
    problems = [f"{source.file}: {source.path!r} {unsafe(source.path)}" for source in found if unsafe(source.path)]
    for one, other in itertools.pairwise(found):
        if one.path == other.path:
            problems.append(f"{one.file} and {other.file} are both to be {one.path}")
    if problems:
        raise BundleError("\n".join(problems))
    return found


def _below(folder: Path, inside: str, without: frozenset[str] = frozenset()) -> Iterator[Source]:
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(set(folders) - without)
        for name in sorted(names):
            file = Path(base, name)
            yield Source(f"{inside}/{file.relative_to(folder).as_posix()}", file)


def _git(checkout: Path, *words: str) -> str | None:
    """Return what git says, or None where it cannot."""
    try:
        done = subprocess.run(
            ["git", "-C", str(checkout), *words],
            capture_output=True,
            check=True,
            encoding="utf-8",
            errors="surrogateescape",
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout
