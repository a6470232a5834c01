"""Files of a node: what the roles rendered there, and digests of it."""

from __future__ import annotations

from kvstrata.verify import nodefiles
from kvstrata.verify.tiers import fingerprint
from tests.verify.simulated.commands.registry import answers
from tests.verify.simulated.state import RELEASE, Machine


@answers("sh", "-c", nodefiles._SCRIPT)
def _texts(machine: Machine, words: list[str]) -> str:
    said = ""
    for path in words[4:]:
        text = machine.files.get(path)
        shown, status = ("cat: No such file or directory\n", 1) if text is None else (text(), 0)
        said += f"\x01{path}\x02{shown}\x03{status}"
    return said


@answers("sh", "-c", fingerprint._CONFIGURATION)
def _configuration(machine: Machine, words: list[str]) -> str:
    return "0123456789abcdef  -\n"


@answers("readlink", "-f", "/opt/kvstrata/current")
def _release(machine: Machine, words: list[str]) -> str:
    return f"{RELEASE}\n"
