"""A release that one node built, given to the nodes of later labs: building it takes a node a minute."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from kvstrata.lab import paths
from kvstrata.lab.errors import LabError

# Where the role `runtime` builds releases, and what it leaves in one that is complete.
RELEASES, COMPLETE = "/opt/kvstrata/releases", ".complete"
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


@dataclass(frozen=True)
class SharedRelease:
    """The release `id` of nodes with the Debian release `suite`, kept in the cache of this machine."""

    id: str
    suite: str

    def __post_init__(self) -> None:
        """Refuse an id that could name another folder."""
        if not _ID.fullmatch(self.id):
            raise LabError(f"release {self.id!r}: allowed is {_ID.pattern}")

    @property
    def folder(self) -> Path:
        """Return where it is kept."""
        return paths.releases_dir() / self.suite / self.id

    def volume(self, *, first: bool) -> str | None:
        """Return podman's volume for a node; None for one that has to build a release of its own.

        A complete release lies below a layer of the node's own, so that no node writes to what others have. Until it
        is complete, the `first` node of a lab builds it there.
        """
        inside = f"{RELEASES}/{self.id}"
        if (self.folder / COMPLETE).exists():
            return f"{self.folder}:{inside}:O"
        return f"{self.folder}:{inside}" if first else None

    def make_room(self) -> None:
        """Remove other releases and what an interrupted build left, and make the folder; no lab may use them."""
        if (self.folder / COMPLETE).exists():
            return
        shutil.rmtree(self.folder.parent, ignore_errors=True)
        self.folder.mkdir(parents=True)
