"""Specifiers of systemd.unit(5): `%i` and others that stand for something of the unit or the host."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path

from kvstrata.unit_runner.errors import UnitError

CREDENTIALS = Path("/run/credentials")
_HEX = re.compile(r"\\x([0-9a-fA-F]{2})")


def unescape(text: str) -> str:
    r"""Return what systemd-escape made `text` of: `-` was a slash, `\xNN` a byte."""
    found = bytearray()
    for number, part in enumerate(_HEX.split(text)):
        found += bytes([int(part, 16)]) if number % 2 else part.replace("-", "/").encode()
    return found.decode(errors="replace")


def of_unit(name: str, user: str = "root", group: str = "root", home: str = "/root") -> dict[str, str]:
    """Return the value of each specifier that is known here, for a unit of the system's manager."""
    full, _, _ = name.rpartition(".")
    prefix, _, instance = full.partition("@")
    return {
        "%": "%",
        "i": instance,
        "I": unescape(instance),
        "n": name,
        "N": full,
        "p": prefix,
        "P": unescape(prefix),
        "j": prefix.rpartition("-")[2],
        "d": str(CREDENTIALS / name),
        "t": "/run",
        "S": "/var/lib",
        "C": "/var/cache",
        "L": "/var/log",
        "E": "/etc",
        "T": "/tmp",  # noqa: S108 - what systemd says
        "V": "/var/tmp",  # noqa: S108
        "H": platform.node(),
        "l": platform.node().partition(".")[0],
        "v": platform.release(),
        # Of the manager, which runs as root, and not of the unit's User=.
        "u": user,
        "U": str(os.getuid()),
        "g": group,
        "G": str(os.getgid()),
        "h": home,
    }


def expand(text: str, known: Mapping[str, str], where: str) -> str:
    """Return `text` with its specifiers replaced.

    Raises:
        UnitError: it has one that is not known here.
    """
    found, position = [], 0
    while (percent := text.find("%", position)) != -1:
        letter = text[percent + 1 : percent + 2]
        if letter not in known or not letter:
            raise UnitError(
                f"{where}: specifier %{letter} in {text!r}; allowed: {' '.join('%' + one for one in known)}"
            )
        found += [text[position:percent], known[letter]]
        position = percent + 2
    return "".join([*found, text[position:]])
