"""One layer of a container image, over a registry's HTTP API (the OCI distribution specification). No docker needed."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import urllib.error
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvstrata.artifacts.download import FIRST_PAUSE_S, ChecksumError, UnreachableError, download, open_url

_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_LARGEST_MANIFEST = 4 << 20
_REFERENCE = re.compile(r"(?P<base>https?://[^/]+)/(?P<name>[a-z0-9._/-]+?)(?P<ref>:[\w.-]+|@sha256:[0-9a-f]{64})")


class ImageError(RuntimeError):
    """A registry's image is not as the lock describes it."""


@dataclass
class Registry:
    """One repository of a registry, and the token that it wants, if any."""

    base: str
    name: str
    authorization: str = ""

    def url(self, kind: str, reference: str) -> str:
        """Return the URL of a manifest or a blob."""
        return f"{self.base}/v2/{self.name}/{kind}/{reference}"

    def log_in(self, challenge: str) -> None:
        """Get a token for reading, as an anonymous user, from whom a 401 names (RFC 6750 and the distribution's own).

        Raises:
            ImageError: if the challenge names nobody.
        """
        fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        if not challenge.lower().startswith("bearer ") or "realm" not in fields:
            raise ImageError(f"{self.base} wants a login that is not supported: {challenge or 'unnamed'}")
        query = {"service": fields.get("service", ""), "scope": f"repository:{self.name}:pull"}
        with open_url(f"{fields['realm']}?{urllib.parse.urlencode(query)}") as response:
            answer = json.loads(response.read(_LARGEST_MANIFEST))
        self.authorization = f"Bearer {answer.get('token') or answer.get('access_token')}"

    def manifest(self, reference: str) -> tuple[dict[str, Any], bytes]:
        """Return a manifest or an index, and the bytes that its digest is of."""
        headers = {"Accept": ", ".join([*_INDEXES, *_MANIFESTS])}
        url = self.url("manifests", reference)
        try:
            response = open_url(url, headers, self.authorization)
        except urllib.error.HTTPError as error:
            if error.code != http.client.UNAUTHORIZED or self.authorization:
                raise
            self.log_in(error.headers.get("WWW-Authenticate", ""))
            response = open_url(url, headers, self.authorization)
        with response:
            content = response.read(_LARGEST_MANIFEST)
        return json.loads(content), content


def is_reference(url: str) -> bool:
    """Tell whether a URL names an image: https://registry/name:tag, or with @sha256:digest."""
    return _REFERENCE.fullmatch(url) is not None


def download_layer(url: str, platform: str, sha256: str, target: Path, first_pause_s: float = FIRST_PAUSE_S) -> None:
    """Put the layer with this digest at `target`.

    Args:
        url: the image, see is_reference.
        platform: as "linux/amd64".
        sha256: the digest of the layer, which is the checksum of the file.
        target: where it is to be.
        first_pause_s: before the second attempt to download it.

    Raises:
        ImageError: if the image has no such platform or no such layer.
        UnreachableError: if the registry does not deliver.
        ChecksumError: if it delivers something else than it was asked for.
    """
    match = _REFERENCE.fullmatch(url)
    if match is None:
        raise ImageError(f"{url} is no image, as https://registry-1.docker.io/apache/kvrocks:TAG")
    registry = Registry(match["base"], match["name"])
    try:
        manifest = _manifest_of(registry, match["ref"][1:], platform)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UnreachableError(f"{url} is out of reach: {error}") from error
    layers = [layer["digest"] for layer in manifest["layers"]]
    wanted = f"sha256:{sha256}"
    if wanted not in layers:
        raise ImageError(f"{url} has no layer {wanted} for {platform}; it has: {', '.join(layers)}")
    download(registry.url("blobs", wanted), target, sha256, registry.authorization, first_pause_s)


def _manifest_of(registry: Registry, reference: str, platform: str) -> Mapping[str, Any]:
    document, content = registry.manifest(reference)
    if reference.startswith("sha256:"):
        _check(reference, content)
    if "manifests" in document:
        entries = {_platform(entry): entry["digest"] for entry in reversed(document["manifests"])}
        if platform not in entries:
            known = ", ".join(sorted(name for name in entries if "unknown" not in name))
            raise ImageError(f"{registry.name}:{reference} is not made for {platform}; it is for: {known}")
        document, content = registry.manifest(entries[platform])
        _check(entries[platform], content)
    if "layers" not in document:
        raise ImageError(f"{registry.name}:{reference} has no layers that can be read here")
    return document


def _platform(entry: Mapping[str, Any]) -> str:
    platform = entry.get("platform") or {}
    return f"{platform.get('os')}/{platform.get('architecture')}"


def _check(digest: str, content: bytes) -> None:
    seen = f"sha256:{hashlib.sha256(content).hexdigest()}"
    if seen != digest:
        raise ChecksumError(f"the registry sent a manifest {seen} for {digest}")
