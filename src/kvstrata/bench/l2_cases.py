"""What `bench l2` compares, and what its sweeps vary. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields

from kvstrata.bench.errors import BenchError
from kvstrata.bench.l2_results import Case
from kvstrata.bench.sizes import KIB, MIB, show_size
from kvstrata.l2.config import TierConfig

ADAPTERS = ("kvstrata", "resp", "valkey")
RESP_NATIVE = "resp-native"
TIER = "tier"
TRANSPORTS = ("tcp", "unix")

_DEFAULTS: Mapping[str, object] = {field.name: field.default for field in fields(TierConfig)}


def cases(clients: Sequence[str], transports: Sequence[str]) -> list[Case]:
    """Return a case for each client, and for kvstrata one for each transport.

    Raises:
        BenchError: an unknown client or transport.
    """
    for name, known in [(c, (*ADAPTERS, TIER, RESP_NATIVE)) for c in clients] + [(t, TRANSPORTS) for t in transports]:
        if name not in known:
            raise BenchError(f"{name!r} is unknown; allowed: {', '.join(known)}")
    found: list[Case] = []
    for client in clients:
        if client in ("kvstrata", TIER):
            found += [Case(f"{client} {t}", client, unix=t == "unix") for t in transports]
        else:
            found.append(Case(client, client))
    return found


def sweep(axes: Sequence[str], client: str = TIER, unix: bool = False) -> list[Case]:
    """Return the cases of these axes (all without any): the defaults, and one thing varied at a time.

    Raises:
        BenchError: an unknown axis.
    """
    values: Mapping[str, Sequence[Mapping[str, int]]] = {
        "piece": [{"piece_bytes": s} for s in (256 * KIB, 512 * KIB, MIB, 2 * MIB, 4 * MIB, 8 * MIB)],
        "connections": [{"load_connections": n, "store_connections": n} for n in (1, 2, 4, 8, 16)],
        "depth": [{"pipeline_depth": n} for n in (1, 2, 4, 8, 16)],
        "transport": [],
        "instances": [],
    }
    for axis in axes:
        if axis not in values:
            raise BenchError(f"axis {axis!r} is unknown; allowed: {', '.join(values)}")
    chosen = axes or list(values)
    found = [Case("defaults", client, unix=unix, axis="defaults")]
    for axis in chosen:
        for varied in values[axis]:
            if any(_DEFAULTS[name] != value for name, value in varied.items()):
                found.append(Case(_name(axis, varied), client, unix=unix, fields=varied, axis=axis))
    if "transport" in chosen:
        found.append(Case(f"transport {'tcp' if unix else 'unix'}", client, unix=not unix, axis="transport"))
    if "instances" in chosen:
        for count in (2, 4):
            name, striped = f"instances {count}, striped", {"stripe_width": 0}
            found.append(Case(name, client, unix=unix, instances=count, fields=striped, axis="instances"))
    return found


def _name(axis: str, varied: Mapping[str, int]) -> str:
    value = next(iter(varied.values()))
    return f"{axis} {show_size(value) if axis == 'piece' else value}"
