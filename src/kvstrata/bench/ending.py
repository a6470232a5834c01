"""How a benchmark ends: by SIGTERM wherever that arrives, and without leaving anything. Standard library alone."""

from __future__ import annotations

import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

_told = threading.Event()


def end_by_exception() -> None:
    """Have SIGTERM raise SystemExit, so that servers and folders are cleaned up on the way out."""
    signal.signal(signal.SIGTERM, _ended)


def end_if_told() -> None:
    """Raise SystemExit if SIGTERM came: Python drops an exception that a handler raises within a destructor."""
    if _told.is_set():
        raise SystemExit(143)


def _ended(_number: int, _frame: object) -> NoReturn:
    _told.set()
    raise SystemExit(143)


@contextmanager
def own_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield a new folder below `parent`, and remove it with all that is in it."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
