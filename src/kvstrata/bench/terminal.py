"""What the benchmark commands have in common on a terminal."""

from __future__ import annotations

from rich.console import Console


def console(plain_width: int, *, stderr: bool = False) -> Console:
    """Return a console; written to a file or a pipe it is `plain_width` wide, so that tables are not cut."""
    made = Console(stderr=stderr)
    if not made.is_terminal:
        made.width = plain_width
    return made
