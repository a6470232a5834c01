"""The configuration in force against the file that the role rendered: what a restart would change is not in force."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from kvstrata.kvrocks.directives import DIRECTIVES, PER_STORE
from kvstrata.verify.check import Json, UnmetError

_KNOWN = {**DIRECTIVES, **PER_STORE}
_SECRET = re.compile(r"requirepass|masterauth|.*-pass")
_SIZE = re.compile(r"(\d+)(k|m|g|kb|mb|gb)", re.IGNORECASE)
# Redis reads "1k" as 1000 and "1kb" as 1024.
_REDIS_UNITS = {"k": 1000, "kb": 1 << 10, "m": 10**6, "mb": 1 << 20, "g": 10**9, "gb": 1 << 30}
_SEVERAL = frozenset({"bind"})


@dataclass(frozen=True)
class Compared:
    """How a file and a store agree. Values are in their normal form."""

    equal: tuple[str, ...]
    differing: tuple[tuple[str, str, str], ...]
    """Name, in the file, in force; the values of a password are not there."""
    unreported: tuple[str, ...]
    """Set by the file, and not among what the store reports."""


def parse(text: str) -> dict[str, str]:
    """The directives of a configuration file of Kvrocks or Redis; of one that stands there twice, the last."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.strip().partition(" ")
        if name and not name.startswith("#"):
            found[name.lower()] = value.strip() if name in _SEVERAL else _unquoted(value)
    return found


def compare(rendered: Mapping[str, str], reported: Mapping[str, str], kvrocks: bool) -> Compared:
    """Compare directive by directive, each in its normal form."""
    equal, differing, unreported = [], [], []
    for name, text in rendered.items():
        if name not in reported:
            unreported.append(name)
        elif (want := normal(name, text, kvrocks)) == (got := normal(name, reported[name], kvrocks)):
            equal.append(name)
        elif _SECRET.fullmatch(name):
            differing.append((name, "", ""))
        else:
            differing.append((name, want, got))
    return Compared(tuple(equal), tuple(differing), tuple(unreported))


def normal(name: str, value: str, kvrocks: bool) -> str:
    """A value in the one form that both the file's and the reported one have when they mean the same."""
    value = value.strip()
    if name in _SEVERAL:
        return " ".join(value.split())
    if kvrocks and name in _KNOWN:
        try:
            return _KNOWN[name].canonical(value)
        except ValueError:
            return value
    match = _SIZE.fullmatch(value)
    if match and not kvrocks:
        return str(int(match[1]) * _REDIS_UNITS[match[2].lower()])
    return value.lower() if value.lower() in ("yes", "no") else value


def judge(text: str | None, path: str, reported: Mapping[str, str], kvrocks: bool, numbers: dict[str, Json]) -> str:
    """What `store.config` sees; UnmetError names each directive that differs."""
    if text is None:
        raise UnmetError(f"{path} is not there, or cannot be read")
    found = compare(parse(text), reported, kvrocks)
    numbers |= {
        "in_force": len(found.equal),
        "differing": [name for name, _, _ in found.differing],
        "not_compared": list(found.unreported),
    }
    beside = f"; not reported, so not compared: {', '.join(found.unreported)}" if found.unreported else ""
    if found.differing:
        raise UnmetError("; ".join(_difference(*one) for one in found.differing) + beside)
    return f"all {len(found.equal)} directives compared are in force{beside}"


def _difference(name: str, want: str, got: str) -> str:
    if _SECRET.fullmatch(name):
        return f"{name} in force is another than the file's (not shown)"
    return f"{name} is {got or 'empty'}, the file sets {want or 'empty'}"


def _unquoted(value: str) -> str:
    try:
        words = shlex.split(value)
    except ValueError:
        return value.strip()
    return words[0] if words else ""
