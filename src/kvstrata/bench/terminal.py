"""What the benchmark commands have in common on a terminal."""

from __future__ import annotations

import signal
import threading
from typing import NoReturn

from rich.console import Console

_told = threading.Event()


def console(plain_width: int, *, stderr: bool = False) -> Console:
    """Return a console; written to a file or a pipe it is `plain_width` wide, so that tables are not cut."""
    made = Console(stderr=stderr)
    if not made.is_terminal:
        made.width = plain_width
    return made


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
