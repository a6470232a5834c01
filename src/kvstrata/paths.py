"""Where kvstrata keeps things on the controller."""

from __future__ import annotations

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
"""The checkout: kvstrata runs from its repository, beside the roles it deploys."""


def cache_dir() -> Path:
    """Return the cache folder: $KVSTRATA_CACHE, or ~/.cache/kvstrata. It can be deleted at any time."""
    return Path(os.environ.get("KVSTRATA_CACHE") or Path.home() / ".cache" / "kvstrata")
