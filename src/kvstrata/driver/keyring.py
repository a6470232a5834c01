"""The key that a driver repository is signed with, on the controller and checked, or not at all."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kvstrata.artifacts.binary import sha256_of
from kvstrata.artifacts.download import FIRST_PAUSE_S, ChecksumError, UnreachableError, download
from kvstrata.artifacts.lock import DriverRepository

_ARMOR = b"-----BEGIN PGP PUBLIC KEY BLOCK-----"


class KeyringError(RuntimeError):
    """There is no keyring that may be used; the message says why, and what to do."""


@dataclass(frozen=True)
class Repository:
    """A package repository and its checked key."""

    url: str
    keyring: str
    """Path on the controller."""
    suffix: str
    """asc where the key is text, gpg where it is binary: apt tells by that."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return asdict(self)


def repository_of(
    wanted: str,
    folder: str,
    locked: DriverRepository,
    cache: Path,
    source: str = "",
    sha256: str = "",
    first_pause_s: float = FIRST_PAUSE_S,
) -> Repository:
    """Return the repository for a node, with a keyring whose checksum was verified.

    Args:
        wanted: "nvidia" for the network repository, else the URL of a mirror.
        folder: the node's folder in the network repository, as "debian12/x86_64".
        locked: what artifacts.lock.yml says.
        cache: the controller's cache folder.
        source: a keyring file on the controller, instead of the lock's.
        sha256: what that file must have.
        first_pause_s: before the second attempt to download.

    Raises:
        KeyringError: if there is no checksum, no file, or another file than the checksum's.
    """
    url = f"{locked.url}/{folder}/" if wanted == "nvidia" else wanted
    path = _given(source, sha256) if source else _locked(folder, locked, cache, first_pause_s)
    with path.open("rb") as stream:
        armored = _ARMOR in stream.read(1024)
    return Repository(url, str(path), "asc" if armored else "gpg")


def _given(source: str, sha256: str) -> Path:
    path = Path(source)
    if not sha256:
        raise KeyringError(
            f"nvidia_driver_keyring_src is {source}; allowed: with nvidia_driver_keyring_sha256 beside it"
        )
    if not path.is_file():
        raise KeyringError(f"nvidia_driver_keyring_src is {source}; allowed: a file that exists on the controller")
    if (seen := sha256_of(path)) != sha256:
        raise KeyringError(f"{source}: sha256 is {seen}; allowed: {sha256}, as nvidia_driver_keyring_sha256 says")
    return path


def _locked(folder: str, locked: DriverRepository, cache: Path, first_pause_s: float) -> Path:
    system = folder.partition("/")[0]
    keyring = locked.keyrings.get(system)
    if keyring is None or keyring.sha256 is None:
        raise KeyringError(
            f"artifacts.lock.yml has no sha256 at nvidia.keyrings.{system}; allowed: the checksum of a key that you "
            "trust. None is shipped, for none could be verified; docs/driver.md says how to fill it in. Or give a "
            "file of yours with nvidia_driver_keyring_src and nvidia_driver_keyring_sha256"
        )
    path = cache / "downloads" / f"nvidia-{system}-{keyring.sha256[:12]}.key"
    # The cache can lie for years: what is in it is looked at again.
    if not path.is_file() or sha256_of(path) != keyring.sha256:
        try:
            download(keyring.url, path, keyring.sha256, first_pause_s=first_pause_s)
        except (UnreachableError, ChecksumError) as error:
            raise KeyringError(str(error)) from error
    return path
