"""The probes in fixtures/, whole or changed in one place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kvstrata.driver.model import Probe, Wanted

FIXTURES = Path(__file__).parent / "fixtures"
NAMES = sorted(path.stem for path in FIXTURES.glob("*.json"))


def seen(name: str, **changes: Any) -> dict[str, Any]:
    """What the module returns for a node; `changes` go into it, into its dictionaries key by key."""
    result: dict[str, Any] = json.loads((FIXTURES / f"{name}.json").read_text())
    for key, value in changes.items():
        old = result[key]
        result[key] = {**old, **value} if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def probe(name: str, **changes: Any) -> Probe:
    """The same, typed."""
    return Probe.of(seen(name, **changes))


def wanted(node: Probe, version: str = "580.95.05", **changes: Any) -> Wanted:
    """A driver for a node with as many GPUs as it has."""
    fields: dict[str, Any] = {"gpus": len(node.gpus), "version": version, "install": True, **changes}
    return Wanted(**fields)
