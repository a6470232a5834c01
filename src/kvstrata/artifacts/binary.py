"""Find the Kvrocks binary: a local file, else the locked download."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kvstrata.artifacts import oci
from kvstrata.artifacts.archives import ArchiveError
from kvstrata.artifacts.compression import UnsupportedError
from kvstrata.artifacts.download import FIRST_PAUSE_S, ChecksumError, UnreachableError, download
from kvstrata.artifacts.kinds import FILE, IMAGE, PACKAGES
from kvstrata.artifacts.lock import Binary

__all__ = ["ArtifactError", "ChecksumError", "Found", "resolve", "sha256_of"]

ArtifactError = (ChecksumError, ArchiveError, UnsupportedError, oci.ImageError)
"""What resolve raises where a file is there, and must not be used."""


@dataclass(frozen=True)
class Found:
    """Where the binary is, or why there is none."""

    path: str | None
    sha256: str | None
    version: str
    """What it must say of itself; empty where nobody knows."""
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return asdict(self)


def sha256_of(path: Path) -> str:
    """Return the file's sha256 in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def resolve(
    source: Path,
    locked: Binary,
    cache: Path,
    sha256: str = "",
    version: str = "",
    first_pause_s: float = FIRST_PAUSE_S,
) -> Found:
    """Return the Kvrocks binary of the controller: `source` when it exists, else the locked download.

    An unreachable URL is no error, only a reason: the caller decides whether a deployment may go on without.

    Args:
        source: a local file.
        locked: the entry of the lock.
        cache: the controller's cache folder.
        sha256: what the local file must have, where the caller knows it.
        version: what the binary must say of itself, instead of what the lock says.
        first_pause_s: before the second attempt to download.

    Raises:
        ChecksumError: if what is there is another file than the lock, or the caller, says.
        ArchiveError, UnsupportedError, ImageError: if the download does not hold the binary.
    """
    if source.is_file():
        seen = sha256_of(source)
        if sha256 and seen != sha256:
            raise ChecksumError(f"{source}: sha256 is {seen}, kvrocks_binary_sha256 says {sha256}")
        return Found(str(source), seen, version, f"local file {source}")
    if locked.url is None or locked.sha256 is None or locked.file_sha256 is None:
        missing = "url" if locked.url is None else "sha256" if locked.sha256 is None else "binary_sha256"
        return Found(None, None, "", f"{source} does not exist and artifacts.lock.yml has no kvrocks.{missing}")
    target = cache / "downloads" / f"kvrocks-{locked.version}-{locked.file_sha256[:12]}"
    # The cache can lie for years: what is in it is looked at again.
    if not target.is_file() or sha256_of(target) != locked.file_sha256:
        try:
            _obtain(locked, locked.url, locked.sha256, target, first_pause_s)
        except UnreachableError as error:
            return Found(None, None, "", f"{source} does not exist and {error}")
    return Found(str(target), locked.file_sha256, version or locked.version, f"download {locked.url}")


def _obtain(locked: Binary, url: str, sha256: str, target: Path, first_pause_s: float) -> None:
    """Download, and take the binary out of the download where it is packed."""
    if locked.kind == FILE:
        download(url, target, sha256, first_pause_s=first_pause_s)
        return
    package = target.with_name(f"kvrocks-{locked.version}-{sha256[:12]}.{locked.kind}")
    if not package.is_file() or sha256_of(package) != sha256:
        if locked.kind == IMAGE:
            oci.download_layer(url, locked.platform, sha256, package, first_pause_s)
        else:
            download(url, package, sha256, first_pause_s=first_pause_s)
    try:
        content = PACKAGES[locked.kind](package, locked.path)
    except ArchiveError as error:
        raise ArchiveError(f"{url}: {error}") from error
    seen = hashlib.sha256(content).hexdigest()
    if seen != locked.file_sha256:
        raise ChecksumError(f"{locked.path} of {url}: sha256 is {seen}, artifacts.lock.yml says {locked.file_sha256}")
    partial = target.with_name(target.name + ".partial")
    partial.write_bytes(content)
    partial.rename(target)
