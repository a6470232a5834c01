"""Find the Kvrocks binary: a local file, else the locked download."""

from __future__ import annotations

import hashlib
import http.client
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kvstrata.artifacts.lock import Binary

TIMEOUT_S = 20


class ChecksumError(RuntimeError):
    """A download is not the file that the lock names."""


@dataclass(frozen=True)
class Found:
    """Where the binary is, or why there is none."""

    path: str | None
    sha256: str | None
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return asdict(self)


def sha256_of(path: Path) -> str:
    """Return the file's sha256 in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def resolve(source: Path, locked: Binary, cache: Path) -> Found:
    """Return the Kvrocks binary of the controller: `source` when it exists, else the locked download.

    An unreachable URL is no error, only a reason: the caller decides whether a deployment may go on without.

    Raises:
        ChecksumError: if what the URL delivered is another file than the lock says.
    """
    if source.is_file():
        return Found(str(source), sha256_of(source), f"local file {source}")
    if locked.url is None or locked.sha256 is None:
        missing = "url" if locked.url is None else "sha256"
        return Found(None, None, f"{source} does not exist and artifacts.lock.yml has no kvrocks.{missing}")
    target = cache / "downloads" / f"kvrocks-{locked.version}-{locked.sha256[:12]}"
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with urllib.request.urlopen(locked.url, timeout=TIMEOUT_S) as response:  # noqa: S310 - the lock's own URL
                content = response.read()
        except (OSError, http.client.HTTPException) as error:  # the latter when the connection is cut in the middle
            return Found(None, None, f"{source} does not exist and {locked.url} is out of reach: {error}")
        seen = hashlib.sha256(content).hexdigest()
        if seen != locked.sha256:
            raise ChecksumError(f"{locked.url}: sha256 is {seen}, artifacts.lock.yml says {locked.sha256}")
        partial = target.with_suffix(".partial")
        partial.write_bytes(content)
        partial.rename(target)
    return Found(str(target), locked.sha256, f"download {locked.url}")
