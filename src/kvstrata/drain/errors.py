"""What keeps a replica from leaving or coming back."""

from __future__ import annotations


class RefusedError(Exception):
    """Nothing was changed; the message says why, and what would be allowed."""


class NotDoneError(Exception):
    """It was begun and did not come to its end; the message says how things are now, and what to do."""
