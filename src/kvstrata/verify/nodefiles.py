"""Small text files of a node, as many as wanted in one command."""

from __future__ import annotations

from collections.abc import Sequence

from kvstrata.verify.shell import Shell

# Control characters that no configuration file and no certificate contains, and that strip() leaves alone.
_FILE, _TEXT, _END = "\x01", "\x02", "\x03"
_SCRIPT = r"""for file; do printf '\001%s\002' "$file"; cat -- "$file" 2>&1; printf '\003%s' "$?"; done"""


def read(shell: Shell, paths: Sequence[str]) -> dict[str, str | None]:
    """The text of each file by its path, None for one that cannot be read; UnableError when nothing can be asked."""
    if not paths:
        return {}
    return parse(shell.run(["sh", "-c", _SCRIPT, "sh", *paths]).text())


def parse(printed: str) -> dict[str, str | None]:
    """What the command printed: each file's path, its text, and whether `cat` could read it."""
    found: dict[str, str | None] = {}
    for part in printed.split(_FILE)[1:]:
        path, _, rest = part.partition(_TEXT)
        text, _, status = rest.rpartition(_END)
        found[path] = text if status == "0" else None
    return found
