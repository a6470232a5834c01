"""Values of directives: times, booleans, limits, signals; see systemd.syntax(7), systemd.time(7), systemd.exec(5)."""

from __future__ import annotations

import re
import resource
import signal

from kvstrata.unit_runner.errors import UnitError

INFINITY = float("inf")
_UNITS = {
    **dict.fromkeys(("usec", "us", "µs"), 1e-6),
    **dict.fromkeys(("msec", "ms"), 1e-3),
    **dict.fromkeys(("seconds", "second", "sec", "s", ""), 1.0),
    **dict.fromkeys(("minutes", "minute", "min", "m"), 60.0),
    **dict.fromkeys(("hours", "hour", "hr", "h"), 3600.0),
    **dict.fromkeys(("days", "day", "d"), 86400.0),
    **dict.fromkeys(("weeks", "week", "w"), 604800.0),
}
_BYTES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50, "E": 1 << 60}
_TRUE, _FALSE = frozenset({"1", "yes", "y", "true", "t", "on"}), frozenset({"0", "no", "n", "false", "f", "off"})

LIMITS = {
    f"Limit{name[len('RLIMIT_') :]}": getattr(resource, name)
    for name in dir(resource)
    if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"
}
"""The number of each limit by its directive: LimitNOFILE and others."""
_BYTE_LIMITS = frozenset(
    f"Limit{name}" for name in ("FSIZE", "DATA", "STACK", "CORE", "RSS", "AS", "MEMLOCK", "MSGQUEUE")
)
_TIME_LIMITS = {"LimitCPU": 1.0, "LimitRTTIME": 1e-6}

Limit = tuple[int, int]
"""Soft and hard, RLIM_INFINITY for none."""


def boolean(text: str, where: str) -> bool:
    """Return a boolean; raises UnitError."""
    if text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    raise UnitError(f"{where}: {text!r}; allowed: yes or no")


def seconds(text: str, where: str) -> float:
    """Return the seconds of a span as `2`, `1min 30s` or `infinity`; raises UnitError."""
    if text == "infinity":
        return INFINITY
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([a-zµ]*)\s*", text)
    if not parts or "".join(re.split(r"\s+", text)) != "".join(number + unit for number, unit in parts):
        raise UnitError(f"{where}: {text!r}; allowed: a time span as 90, 1min 30s or infinity")
    if unknown := [unit for _, unit in parts if unit not in _UNITS]:
        raise UnitError(f"{where}: unit {unknown[0]!r} in {text!r}; allowed: {', '.join(filter(None, _UNITS))}")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def timeout(text: str, where: str) -> float:
    """Return the seconds of a time-out, for which 0 is none; raises UnitError."""
    return seconds(text, where) or INFINITY


def number(text: str, where: str, low: int, high: int) -> int:
    """Return a whole number within bounds; raises UnitError."""
    if re.fullmatch(r"[+-]?\d+", text) and low <= int(text) <= high:
        return int(text)
    raise UnitError(f"{where}: {text!r}; allowed: {low} to {high}")


def mode(text: str, where: str) -> int:
    """Return permissions or a umask; raises UnitError."""
    if re.fullmatch("[0-7]{1,4}", text):
        return int(text, 8)
    raise UnitError(f"{where}: {text!r}; allowed: octal digits, as 0077")


def signal_of(text: str, where: str) -> int:
    """Return a signal by its name, with or without SIG, or its number; raises UnitError."""
    if text.isdigit() and 1 <= int(text) <= 64:
        return int(text)
    name = text if text.startswith("SIG") else f"SIG{text}"
    try:
        return int(signal.Signals[name])
    except KeyError:
        raise UnitError(f"{where}: {text!r}; allowed: a signal, as SIGTERM") from None


def limit(name: str, text: str, where: str) -> Limit:
    """Return soft and hard of a Limit*= directive: one value for both, or SOFT:HARD; raises UnitError."""
    soft, _, hard = text.partition(":")
    found = (_limit(name, soft, where), _limit(name, hard or soft, where))
    if found[1] != resource.RLIM_INFINITY and (found[0] > found[1] or found[0] == resource.RLIM_INFINITY):
        raise UnitError(f"{where}: {text!r}; allowed: a soft limit no higher than the hard one")
    return found


def _limit(name: str, text: str, where: str) -> int:
    if text == "infinity":
        return resource.RLIM_INFINITY
    if name in _TIME_LIMITS:
        return round(
            (float(text) * _TIME_LIMITS[name] if text.isdigit() else seconds(text, where)) / _TIME_LIMITS[name]
        )
    if name == "LimitNICE" and re.fullmatch(r"[+-]\d+", text):
        return 20 - number(text, where, -20, 19)
    match = re.fullmatch(r"(\d+)([KMGTPE]?)" if name in _BYTE_LIMITS else r"(\d+)()", text)
    if match is None:
        raise UnitError(f"{where}: {text!r}; allowed: a number, infinity, or SOFT:HARD of them")
    return int(match[1]) * _BYTES[match[2]]
