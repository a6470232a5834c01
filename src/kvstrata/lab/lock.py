"""One command at a time where several would step on each other's files."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kvstrata.lab.progress import console


@contextmanager
def one_at_a_time(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path` for the block; say so and wait while another `what` command holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print(f"[dim]waiting for another {what} command to end[/dim]")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
