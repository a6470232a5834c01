"""Which units of a host are not as they shall be, by what `systemctl show` says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def units_to_change(wanted: Sequence[Mapping[str, Any]], shown: str) -> list[dict[str, Any]]:
    """Return those of the wanted units that differ, each with `found`: whether the host has it.

    Args:
        wanted: each with unit and enabled, and where it matters active.
        shown: the output of `systemctl show --property=Id,LoadState,ActiveState,UnitFileState UNITS`, in their order.
    """
    blocks = [dict(line.split("=", 1) for line in block.splitlines()) for block in shown.strip().split("\n\n") if block]
    if len(blocks) != len(wanted):
        raise ValueError(f"systemctl showed {len(blocks)} units, asked for were {len(wanted)}")
    return [
        {**unit, "found": block["LoadState"] != "not-found"}
        for unit, block in zip(wanted, blocks, strict=True)
        if not _is_as_wanted(unit, block)
    ]


def _is_as_wanted(unit: Mapping[str, Any], block: Mapping[str, str]) -> bool:
    if block["LoadState"] == "not-found":
        return not unit["enabled"]
    if (block["UnitFileState"] == "enabled") != unit["enabled"]:
        return False
    return "active" not in unit or (block["ActiveState"] == "active") == unit["active"]
