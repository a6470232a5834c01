"""How far a drop is, on stderr: a spinner on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import threading
import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from kvstrata.cache.tables import show_bytes

_LINE_EVERY_S = 5.0
_SPIN_EVERY_S = 0.2


class DropProgress:
    """Counts what all stores together have deleted; safe for many threads."""

    def __init__(self, console: Console, namespace: str, chunks: int, used_bytes: int) -> None:
        """`chunks` and `used_bytes` are what there is to delete."""
        self._console = console
        self._namespace = namespace
        self._of = f"{chunks:,} chunks, {show_bytes(used_bytes)}"
        self._lock = threading.Lock()
        self._chunks = self._bytes = 0
        self._said = 0.0
        self._spinner: Status | None = console.status("") if console.is_terminal else None

    def note(self, chunks: int, used_bytes: int) -> None:
        """Count a page that was deleted, and say how far it is when that was not said just now."""
        with self._lock:
            self._chunks += chunks
            self._bytes += used_bytes
            now = time.monotonic()
            if now - self._said < (_SPIN_EVERY_S if self._spinner else _LINE_EVERY_S):
                return
            self._said = now
            self._say()

    def _say(self) -> None:
        text = f"{self._namespace}: deleted {self._chunks:,} chunks, {show_bytes(self._bytes)} (of {self._of})"
        if self._spinner is not None:
            self._spinner.update(escape(text))
        else:
            self._console.print(f"[dim]..[/] {escape(text)}", highlight=False, soft_wrap=True)

    def __enter__(self) -> DropProgress:
        """Begin."""
        if self._spinner is not None:
            self._spinner.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Take the spinner away."""
        if self._spinner is not None:
            self._spinner.stop()
