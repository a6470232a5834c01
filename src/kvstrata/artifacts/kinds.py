"""The kinds of download that a binary can come in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from kvstrata.artifacts.archives import from_tarball
from kvstrata.artifacts.deb import from_deb
from kvstrata.artifacts.rpm import from_rpm

FILE = "file"
IMAGE = "image"

PACKAGES: Mapping[str, Callable[[Path, str], bytes]] = {
    # A layer is a tar archive.
    IMAGE: from_tarball,
    "tarball": from_tarball,
    "deb": from_deb,
    "rpm": from_rpm,
}
"""How to take a file out of a download, by kind."""

KINDS = (FILE, *PACKAGES)
