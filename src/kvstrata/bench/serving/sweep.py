"""Variants of a configuration: `--sweep chunk_size=64,256,1024` is the base with each of these in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving.configurations import Configuration
from kvstrata.bench.sizes import parse_size


@dataclass(frozen=True)
class Axis:
    """Something that can be varied."""

    field: str
    parse: Callable[[str], Any]
    allowed: str
    applies: Callable[[Configuration], bool]
    needs: str
    """What a configuration must have for it to matter."""


def _has_lmcache(configuration: Configuration) -> bool:
    return configuration.cache.startswith("lmcache")


def _has_dram(configuration: Configuration) -> bool:
    return configuration.cache != "none"


def _has_tier(configuration: Configuration) -> bool:
    return configuration.stores == "kvstrata"


def _asks(configuration: Configuration) -> bool:
    return configuration.cache == "lmcache"


def _has_connections(configuration: Configuration) -> bool:
    return configuration.stores in ("kvstrata", "resp")


AXES = {
    "chunk_size": Axis("chunk_tokens", int, "tokens", _has_lmcache, "LMCache"),
    "piece_size": Axis("piece_bytes", parse_size, "bytes, as 256KiB or 1MiB", _has_tier, "kvstrata.l2"),
    "connections": Axis("connections", int, "a number", _has_connections, "kvstrata.l2 or resp"),
    "hbm_gib": Axis("hbm_gib", float, "GiB", lambda _: True, ""),
    "dram_gib": Axis("l1_gib", float, "GiB", _has_dram, "a DRAM tier"),
    "min_load_gbps": Axis("min_load_gbps", float, "1e9 bytes/s", _has_tier, "kvstrata.l2"),
    "recheck_s": Axis("recheck_s", int, "seconds", _asks, "LMCache's daemon"),
    "ask_chunks": Axis("ask_chunks", int, "a number", _asks, "LMCache's daemon"),
    "answer_ms": Axis("answer_ms", float, "milliseconds", _asks, "LMCache's daemon"),
}

Values = tuple[tuple[str, Any, str], ...]


def parse(given: Sequence[str]) -> dict[str, list[tuple[Any, str]]]:
    """Return for each axis its values, each with its text.

    Raises:
        BenchError: an unknown axis, one that is named twice, or a value that it cannot have.
    """
    found: dict[str, list[tuple[Any, str]]] = {}
    # Several may stand in one word: --sweep "chunk_size=64,256 connections=4,8".
    for word in (part for entry in given for part in entry.split()):
        name, _, values = word.partition("=")
        axis = AXES.get(name)
        if axis is None or not values:
            raise BenchError(f"--sweep {word!r}; allowed: NAME=VALUE,... with NAME of {', '.join(AXES)}")
        if name in found:
            raise BenchError(f"--sweep names {name} twice; allowed: once, with all values")
        found[name] = [(_value(name, axis, text), text) for text in values.split(",")]
    return found


def variants(
    base: Configuration, axes: dict[str, list[tuple[Any, str]]], *, cross: bool = False
) -> list[Configuration]:
    """Return the base, then one configuration for each value of each axis (`cross`: of each combination of values).

    Raises:
        BenchError: an axis does not matter to the base.
    """
    for name in axes:
        if not AXES[name].applies(base):
            raise BenchError(f"--sweep {name}: {base.name} has no {AXES[name].needs}; allowed: another --base")
    single = ([(name, value, text)] for name, values in axes.items() for value, text in values)
    every = product(*([(name, value, text) for value, text in values] for name, values in axes.items()))
    found = [base]
    for changes in every if cross else single:
        fields = {AXES[name].field: value for name, value, _ in changes}
        # The base itself is there already.
        if all(getattr(base, field) == value for field, value in fields.items()):
            continue
        told = " ".join(f"{name}={text}" for name, _, text in changes)
        found.append(replace(base, name=f"{base.name} {told}", **fields))
    return found


def _value(name: str, axis: Axis, text: str) -> Any:
    try:
        return axis.parse(text)
    except ValueError:
        raise BenchError(f"--sweep {name}: {text!r}; allowed: {axis.allowed}") from None
