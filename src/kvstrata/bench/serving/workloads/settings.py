"""Settings of workloads: read from NAME=VALUE, scaled, and declared for the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import Field, fields, replace
from typing import Any, ClassVar, Protocol

from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving.model import Json
from kvstrata.plan.workload import Range


class Settings(Protocol):
    """A frozen dataclass whose fields are whole numbers, numbers, ranges or texts."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


def override[S: Settings](workload: str, settings: S, given: Mapping[str, str]) -> S:
    """Return the settings with what was given instead.

    Raises:
        BenchError: an unknown name, or a value that is not allowed; it says which, what was given, what is allowed.
    """
    known = _names(settings)
    changed: dict[str, Any] = {}
    for name, text in given.items():
        if name not in known:
            raise BenchError(f"workload {workload}: nothing named {name!r}; allowed: {', '.join(known)}")
        parse, allowed = _READERS[type(getattr(settings, name))]
        try:
            changed[name] = parse(text)
        except ValueError:
            raise BenchError(f"workload {workload}: {name}: given {text!r}; allowed: {allowed}") from None
    return replace(settings, **changed)


def scale[S: Settings](settings: S, share: float, counts: tuple[str, ...]) -> S:
    """Return the settings with their counts scaled, at least 1 each; lengths stay, so a request costs what it did."""
    if share == 1.0:
        return settings
    return replace(settings, **{name: max(1, round(getattr(settings, name) * share)) for name in counts})


def declare(settings: Settings) -> dict[str, Json]:
    """Return the settings for the report; a range as [low, high]."""
    return {name: _plain(getattr(settings, name)) for name in _names(settings)}


def differences(settings: Settings, defaults: Settings) -> str | None:
    """Return in words where settings are not the workload's own, None if nowhere."""
    mine, theirs = declare(settings), declare(defaults)
    changed = [
        f"{name} {_show(mine[name])} instead of {_show(theirs[name])}" for name in mine if mine[name] != theirs[name]
    ]
    return ", ".join(changed) or None


def _names(settings: Settings) -> list[str]:
    return [entry.name for entry in fields(settings) if entry.name != "name"]


def _plain(value: object) -> Json:
    if isinstance(value, Range):
        return [value.low, value.high]
    return value if isinstance(value, int | float | str) else str(value)


def _show(value: Json) -> str:
    return "-".join(str(item) for item in value) if isinstance(value, list) else str(value)


def _whole(text: str) -> int:
    if (value := int(text)) < 1:
        raise ValueError
    return value


def _number(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError
    return value


def _range(text: str) -> Range:
    low, _, high = text.partition("-")
    found = Range(_whole(low), _whole(high or low))
    if found.high < found.low:
        raise ValueError
    return found


_READERS: dict[type, tuple[Callable[[str], Any], str]] = {
    int: (_whole, "a whole number from 1"),
    float: (_number, "a number from 0"),
    Range: (_range, "a whole number from 1, or two as LOW-HIGH"),
    str: (str, "a text"),
}
