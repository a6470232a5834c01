"""Sizes in bytes, as people write them."""

from __future__ import annotations

import re

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30

_UNITS = {"": 1, "B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB}


def parse_size(text: str | int) -> int:
    """Return the bytes of `64KiB`, `1 MiB`, `2GiB` or a plain number.

    Raises:
        ValueError: for anything else, decimal units included: they would be mistaken for binary ones.
    """
    found = re.fullmatch(r"\s*(\d+)\s*([KMG]iB|B)?\s*", str(text))
    if not found:
        raise ValueError(f"{text!r} is no size; allowed: a number of bytes, or one with KiB, MiB or GiB")
    return int(found[1]) * _UNITS[found[2] or ""]


def show_size(size: int) -> str:
    """Return the size with the largest unit that divides it."""
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]} {unit}"
    return f"{size} B"
