"""Which installed packages are to be held, and how dpkg and dnf are told so."""

from __future__ import annotations

import fnmatch
from typing import Any

BEGIN = "# kvstrata {owner}: begin"
END = "# kvstrata {owner}: end"


def parse_dpkg(text: str) -> dict[str, bool]:
    """Return the installed packages and whether each is on hold.

    Args:
        text: of `dpkg-query --show --showformat '${binary:Package}\\t${db:Status-Want}\\t${db:Status-Status}\\n'`.
    """
    found = {}
    for line in text.splitlines():
        name, want, status = line.split("\t")
        if status == "installed":
            found[name] = want == "hold"
    return found


def matching(names: Any, patterns: list[str]) -> list[str]:
    """Return the names that a shell pattern matches; an architecture behind a colon does not count."""
    return sorted(name for name in names if any(fnmatch.fnmatchcase(name.split(":")[0], each) for each in patterns))


def selections(
    installed: dict[str, bool], patterns: list[str], ours: list[str]
) -> tuple[list[str], list[str], list[str]]:
    """Return what to hold, what to release, and what is held for us afterwards.

    Args:
        installed: packages, and whether each is on hold.
        patterns: shell patterns of what is to be held.
        ours: what we put on hold before; whatever somebody else did is neither released nor taken over.
    """
    wanted = matching(installed, patterns)
    hold = [name for name in wanted if not installed[name]]
    release = [name for name in ours if name not in wanted and installed.get(name)]
    return hold, release, sorted(set(hold) | (set(ours) & set(wanted)))


def locked(text: str, owner: str, entries: list[str]) -> str:
    """Return the text of versionlock.list with our block of entries anew, and everything else as it was."""
    begin, end = BEGIN.format(owner=owner), END.format(owner=owner)
    kept, ours = [], False
    for line in text.splitlines():
        ours = ours or line == begin
        if not ours:
            kept.append(line)
        ours = ours and line != end
    block = [begin, *entries, end] if entries else []
    return "".join(f"{line}\n" for line in [*kept, *block])
