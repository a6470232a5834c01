"""The fault matrix as text: one line for each fault, one column for each adapter."""

from __future__ import annotations

from collections.abc import Sequence

from kvstrata.bench.faults.rows import FAILED, NOT_APPLICABLE, NOT_CHECKED, Row


def grid(rows: Sequence[Row], engine: str) -> tuple[list[str], list[list[str]]]:
    """Return headers and lines for one engine."""
    ours = [row for row in rows if row.engine == engine]
    adapters = list(dict.fromkeys(row.adapter for row in ours))
    faults = dict.fromkeys((row.fault, row.what) for row in ours)
    found = {(row.fault, row.adapter): row for row in ours}
    lines = [
        [what, *(cell(found[fault, adapter]) if (fault, adapter) in found else "" for adapter in adapters)]
        for fault, what in faults
    ]
    return ["fault", *adapters], lines


def cell(row: Row) -> str:
    """Return what one adapter did under one fault."""
    if row.verdict in (NOT_CHECKED, NOT_APPLICABLE):
        return row.verdict
    if row.verdict == FAILED:
        return f"{FAILED}: {'; '.join(row.broken)}"
    parts = []
    if row.worst_operation:
        of = "" if row.deadline_s is None else f" of {row.deadline_s:g}"
        parts.append(f"{row.worst_operation} {row.worst_s:.1f}{of} s")
    if row.back_s is not None:
        parts.append(f"back {row.back_s:.1f} s")
    if row.others_asked:
        parts.append(f"others {row.others_hit}/{row.others_asked}")
    return ", ".join(["ok", *parts])


def not_checked(rows: Sequence[Row]) -> list[str]:
    """Return why rows were not checked, each reason once."""
    return list(
        dict.fromkeys(
            f"{row.fault}, {row.engine}: {'; '.join(row.notes)}" for row in rows if row.verdict == NOT_CHECKED
        )
    )


def markdown(rows: Sequence[Row], versions: dict[str, str]) -> str:
    """Return the tables of all engines."""
    text = ", ".join(f"{name} {version}" for name, version in versions.items()) + "\n"
    for engine in dict.fromkeys(row.engine for row in rows):
        headers, lines = grid(rows, engine)
        text += f"\n### On {engine}\n\n" + "".join(
            "| " + " | ".join(word.replace("|", "/") for word in line) + " |\n"
            for line in [headers, ["---"] * len(headers), *lines]
        )
    return text + "".join(f"\nNOT CHECKED: {reason}\n" for reason in not_checked(rows))
