"""The definition of a study: read from YAML, checked, and turned into the setups to measure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from kvstrata.bench.errors import BenchError
from kvstrata.bench.sizes import KIB, MIB, parse_size

BASE = "base"
DRAM = "redis-server (DRAM)"
DEFAULT_STUDY = Path(__file__).with_name("store.yml")

_CHOICES = {"layout": ("hash", "string"), "allocator": ("tuned", "default")}
_COUNTS = {"connections": (1, 1024), "pipeline": (1, 256), "instances": (1, 64)}
_LOAD_FIELDS = frozenset(("value_bytes", "layout", "connections", "pipeline", "instances"))


@dataclass(frozen=True)
class Setup:
    """One configuration of server and load."""

    name: str
    axis: str
    value_bytes: int
    layout: str
    connections: int
    pipeline: int
    instances: int
    allocator: str
    directives: Mapping[str, str] = field(default_factory=dict)
    server: str = "kvrocks"

    @property
    def fields_per_hash(self) -> int:
        """How many values one hash holds: 32 MiB of them, one chunk of kvstrata.l2, and at least one."""
        return max(1, 32 * MIB // self.value_bytes)


@dataclass(frozen=True)
class Study:
    """A base and its variations, by axis."""

    base: Setup
    axes: Mapping[str, Sequence[Setup]]
    quick: Sequence[str]

    def setups(self, axes: Iterable[str] | None = None) -> list[Setup]:
        """Return the base and the variations along `axes`, or along all of them.

        Raises:
            BenchError: an axis is unknown.
        """
        chosen = list(self.axes) if axes is None else list(axes)
        if unknown := [axis for axis in chosen if axis not in self.axes]:
            raise BenchError(f"unknown axis {', '.join(unknown)}; allowed: {', '.join(self.axes)}")
        return [self.base, *(setup for axis in self.axes if axis in chosen for setup in self.axes[axis])]


def for_redis(setups: Iterable[Setup]) -> list[Setup]:
    """Return what of the setups can be asked of redis-server: those that vary the load and not the server."""
    base, *others = setups
    plain = replace(base, server="redis", allocator="default", directives={})
    kept = [replace(setup, server="redis", allocator="default", directives={}) for setup in others]
    return [plain] + [
        setup for setup in kept if any(getattr(setup, name) != getattr(base, name) for name in _LOAD_FIELDS)
    ]


def dram_baseline(base: Setup) -> Setup:
    """Return the base's load on redis-server, which keeps everything in DRAM."""
    return replace(base, name=DRAM, axis=DRAM, server="redis", allocator="default", directives={})


def read_study(path: Path = DEFAULT_STUDY) -> Study:
    """Read and check a study.

    Raises:
        BenchError: it cannot be read, or something in it is unknown or out of range; the message says where.
    """
    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise BenchError(f"study {path}: {error}") from error
    if not isinstance(data, dict) or set(data) != {"base", "axes", "quick"}:
        raise BenchError(f"study {path}: must have exactly base, axes and quick")
    base = _setup(data["base"], BASE, BASE, None)
    axes = {
        str(axis): [_setup(entry, f"{axis}: {name}", str(axis), base) for name, entry in variations.items()]
        for axis, variations in data["axes"].items()
    }
    study = Study(base, axes, [str(axis) for axis in data["quick"]])
    study.setups(study.quick)
    return study


def _setup(entry: Mapping[str, Any], name: str, axis: str, base: Setup | None) -> Setup:
    known = {"directives", "only_directives", "value", *_CHOICES, *_COUNTS}
    if unknown := sorted(set(entry) - known):
        raise BenchError(f"{name}: unknown {', '.join(unknown)}; allowed: {', '.join(sorted(known))}")
    if base is None and (missing := sorted(known - {"only_directives"} - set(entry))):
        raise BenchError(f"{name}: {', '.join(missing)} missing")
    changes: dict[str, Any] = {"name": name, "axis": axis, "directives": _directives(entry, base)}
    if "value" in entry:
        changes["value_bytes"] = _value_bytes(entry["value"], name)
    for key, choices in _CHOICES.items():
        if key in entry:
            if entry[key] not in choices:
                raise BenchError(f"{name}: {key} is {entry[key]!r}; allowed: {', '.join(choices)}")
            changes[key] = entry[key]
    for key, (low, high) in _COUNTS.items():
        if key in entry:
            if not isinstance(entry[key], int) or not low <= entry[key] <= high:
                raise BenchError(f"{name}: {key} is {entry[key]!r}; allowed: {low} to {high}")
            changes[key] = entry[key]
    made = Setup(**changes) if base is None else replace(base, **changes)
    if made.connections < made.instances:
        raise BenchError(f"{name}: {made.connections} connections cannot reach {made.instances} instances")
    return made


def _directives(entry: Mapping[str, Any], base: Setup | None) -> dict[str, str]:
    if "only_directives" in entry:
        return {key: str(value) for key, value in entry["only_directives"].items()}
    merged = dict(base.directives) if base else {}
    return merged | {key: str(value) for key, value in entry.get("directives", {}).items()}


def _value_bytes(text: str | int, name: str) -> int:
    try:
        size = parse_size(text)
    except ValueError as error:
        raise BenchError(f"{name}: value: {error}") from error
    # Above 512 MiB Kvrocks drops the connection; below 4 KiB the client and not the store is measured.
    if not 4 * KIB <= size <= 256 * MIB:
        raise BenchError(f"{name}: value is {text}; allowed: 4 KiB to 256 MiB")
    return size
