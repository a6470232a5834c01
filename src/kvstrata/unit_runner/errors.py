"""What the runner refuses."""

from __future__ import annotations


class UnitError(Exception):
    """A unit that cannot be run as it is written; with file, directive, what was given and what is allowed."""


class StepError(Exception):
    """A process could not be made as its unit says; `code` is the exit code that systemd gives such a process."""

    def __init__(self, code: int, message: str) -> None:
        """Keep both."""
        super().__init__(message)
        self.code = code
