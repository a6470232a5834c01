"""Which function answers which command of the verifier.

    @answers("findmnt", "--json")
    def _findmnt(machine: Machine, words: list[str]) -> Said: ...

A command belongs to the function with the longest beginning that fits. Scripts are named by the constants of the
modules that send them, programs by those modules: a changed one is still answered. One that is new is unknown, which
fails the test.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from tests.verify.simulated.state import Machine


@dataclass(frozen=True)
class Said:
    """What a command printed, its exit status, and the seconds that it took."""

    out: str = ""
    status: int = 0
    err: str = ""
    delay_s: float = 0.0


type Answering = Callable[[Machine, list[str]], Said | str]

_KNOWN: dict[tuple[str, ...], Answering] = {}


def answers(*beginning: str | ModuleType) -> Callable[[Answering], Answering]:
    """Have a function answer the commands that begin so; a module stands for its source text."""

    def known(function: Answering) -> Answering:
        words = (word if isinstance(word, str) else inspect.getsource(word) for word in beginning)
        _KNOWN[tuple(_first_line(word) for word in words)] = function
        return function

    return known


def run(machine: Machine, words: list[str]) -> Said | None:
    """What the node says to a command; None when it never ends."""
    line = " ".join(words)
    hangs = machine.state.hangs
    if hangs is not None and line.startswith(hangs):
        return None
    heads = tuple(_first_line(word) for word in words)
    for length in range(len(heads), 0, -1):
        function = _KNOWN.get(heads[:length])
        if function is not None:
            said = function(machine, words)
            return Said(said) if isinstance(said, str) else said
    machine.site.unknown.append(line[:200])
    return Said(status=127, err=f"{words[0] if words else 'nothing'}: a simulated node knows no such command\n")


def _first_line(word: str) -> str:
    """A program is known by its first line: whoever works on it while the tests run changes the others."""
    return word.strip().partition("\n")[0]
