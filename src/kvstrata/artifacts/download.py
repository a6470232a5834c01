"""Download one file over HTTP, whole and with the right checksum, or not at all."""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import IO

TIMEOUT_S = 20
ATTEMPTS = 3
FIRST_PAUSE_S = 0.5
_BLOCK = 1 << 20
# What may pass by itself; anything else is asked once.
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})


class UnreachableError(RuntimeError):
    """A URL did not deliver; the message says why."""


class ChecksumError(RuntimeError):
    """A file is not the one that the lock or the inventory names."""


def open_url(url: str, headers: Mapping[str, str] | None = None, authorization: str = "") -> IO[bytes]:
    """Return the response of a GET.

    Args:
        url: http or https.
        headers: sent to whatever host the answer comes from in the end.
        authorization: sent to the host of `url` alone: a redirect leads to somebody else, who must not see it.

    Raises:
        OSError, http.client.HTTPException: as urllib does.
    """
    if not url.startswith(("http://", "https://")):
        raise UnreachableError(f"{url} is no http or https URL")
    request = urllib.request.Request(url, headers=dict(headers or {}))  # noqa: S310 - checked above
    if authorization:
        request.add_unredirected_header("Authorization", authorization)
    response: IO[bytes] = urllib.request.urlopen(request, timeout=TIMEOUT_S)  # noqa: S310 - checked above
    return response


def download(
    url: str, target: Path, sha256: str, authorization: str = "", first_pause_s: float = FIRST_PAUSE_S
) -> None:
    """Put the file behind `url` at `target`, where nothing appears unless it is whole and has the checksum.

    Raises:
        UnreachableError: if the URL does not deliver, after some attempts where that may pass.
        ChecksumError: if what it delivered is another file.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    try:
        seen = _attempts(url, partial, authorization, first_pause_s)
        if seen != sha256:
            raise ChecksumError(f"{url}: sha256 is {seen}, artifacts.lock.yml says {sha256}")
        partial.rename(target)
    finally:
        partial.unlink(missing_ok=True)


def _attempts(url: str, partial: Path, authorization: str, pause_s: float) -> str:
    for attempt in range(ATTEMPTS):
        try:
            return _once(url, partial, authorization)
        except (OSError, http.client.HTTPException) as error:  # the latter when the connection is cut in the middle
            passing = not isinstance(error, urllib.error.HTTPError) or error.code in _PASSING
            if not passing or attempt == ATTEMPTS - 1:
                raise UnreachableError(f"{url} is out of reach: {error}") from error
        time.sleep(pause_s * 2**attempt)  # somebody else's server: there is nothing here to wait for
    raise AssertionError("unreachable")


def _once(url: str, partial: Path, authorization: str) -> str:
    digest = hashlib.sha256()
    with open_url(url, authorization=authorization) as response, partial.open("wb") as stream:
        expected = response.headers.get("Content-Length")  # type: ignore[attr-defined]
        size = 0
        while block := response.read(_BLOCK):
            digest.update(block)
            stream.write(block)
            size += len(block)
        # Reading in blocks, http.client takes an early end for the end.
        if expected is not None and size != int(expected):
            raise http.client.IncompleteRead(b"", int(expected) - size)
    return digest.hexdigest()
