"""One reason not to deploy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_SECRET = re.compile(r"pas+w|requirepass|masterauth|secret|token$|key$", re.IGNORECASE)


@dataclass(frozen=True)
class Problem:
    """A value that cannot work."""

    where: str
    """The host, or "inventory"."""
    variable: str
    given: object
    allowed: str
    """What would be accepted, in words."""

    def __str__(self) -> str:
        """Return the one line that a user reads; a value that looks like a secret is not in it."""
        given = "(not shown)" if _SECRET.search(self.variable) else repr(self.given)
        return f"{self.where}: {self.variable} is {given}; allowed: {self.allowed}"


def report(problems: Sequence[Problem]) -> str:
    """Return all problems as one message, in a stable order."""
    lines = sorted({str(problem) for problem in problems})
    count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
    return f"{count}, and nothing was changed on any host:\n" + "\n".join(f"  - {line}" for line in lines)
