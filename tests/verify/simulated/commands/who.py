"""Who the node is."""

from __future__ import annotations

from kvstrata.verify import access
from tests.verify.simulated.commands.registry import answers
from tests.verify.simulated.state import RELEASE, Machine


@answers("sh", "-c", access._WHO)
def _who(machine: Machine, words: list[str]) -> str:
    return f"Debian GNU/Linux 13 (trixie)\n6.12.0\n{RELEASE}\n"


@answers("true")
def _true(machine: Machine, words: list[str]) -> str:
    return ""
