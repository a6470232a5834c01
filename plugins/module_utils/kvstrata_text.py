"""Placing small text files: at once, only where they differ, with what `--diff` shows."""

from __future__ import annotations

import os
import tempfile
from typing import Any


def read(path: str) -> str | None:
    """Return a file's text, or None where there is none."""
    try:
        with open(path, errors="replace") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def place(module: Any, path: str, text: str, mode: int) -> dict[str, str] | None:
    """Make `path` hold `text` with `mode`, its folder too; return what `--diff` shows, or None for no change.

    Args:
        module: the AnsibleModule; in its check mode nothing is written.
        path: absolute.
        text: what the file shall hold.
        mode: its permissions.
    """
    before = read(path)
    differs = before != text
    if differs and not module.check_mode:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".kvstrata-")
        with os.fdopen(handle, "w") as stream:
            stream.write(text)
        # Keeps or gives the security context of the place, where the system has such.
        module.atomic_move(name, path)
    if os.path.exists(path) and not module.set_mode_if_different(path, mode, False) and not differs:
        return None
    return {"before": before or "", "after": text, "before_header": path, "after_header": path}


def remove(module: Any, path: str) -> dict[str, str] | None:
    """Remove a file; return what `--diff` shows, or None where there was none."""
    before = read(path)
    if before is None:
        return None
    if not module.check_mode:
        os.unlink(path)
    return {"before": before, "after": "", "before_header": path, "after_header": f"{path} (removed)"}
