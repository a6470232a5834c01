"""The tables for people; programs read --json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kvstrata.cache.drop import Compaction, Dropped
from kvstrata.cache.reach import Answer
from kvstrata.cache.rows import NamespaceRow, StoreRow, Totals

_DIGEST_SHOWN = 12
_UNKNOWN = "?"


def show_bytes(size: int | None) -> str:
    """Return a size with a binary unit and three digits, nothing for None."""
    if size is None:
        return ""
    number = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if number < 999.5 or unit == "TiB":
            break
        number /= 1024
    digits = 0 if unit == "B" else max(0, 2 - (number >= 9.995) - (number >= 99.95))
    return f"{number:,.{digits}f} {unit}"


def show_age(seconds: float | None) -> str:
    """Return an age in the largest unit of which it has at least two."""
    if seconds is None:
        return ""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def ls(site: str, rows: Sequence[NamespaceRow], console: Console) -> None:
    """Print a row for each namespace."""
    table = _table(f"kvstrata cache ls: {site}")
    table.add_column("namespace", no_wrap=True)
    for name in ("", "model", "revision", "dtype/KV"):
        table.add_column(name, overflow="fold")
    for name in ("chunk", "TP"):
        table.add_column(name, justify="right")
    table.add_column("wheels", overflow="fold")
    for name in ("chunks", "used", "share", "last used", "oldest"):
        table.add_column(name, justify="right")
    for row in rows:
        said = row.identity
        table.add_row(
            escape(row.namespace),
            "[green]current[/]" if row.current else "",
            _said(said, "model"),
            _said(said, "revision"),
            f"{_said(said, 'dtype')}/{_said(said, 'kv_dtype')}",
            _said(said, "chunk_tokens"),
            _said(said, "tensor_parallel"),
            _said(said, "wheels")[:_DIGEST_SHOWN],
            f"{row.chunks:,}",
            show_bytes(row.used_bytes),
            f"{row.share:.1%}",
            show_age(row.newest_age_s),
            show_age(row.oldest_age_s),
        )
    console.print(table)


def du(site: str, rows: Sequence[StoreRow], totals: Totals, console: Console) -> None:
    """Print a row for each store, and the totals."""
    table = _table(f"kvstrata cache du: {site}")
    for name in ("node", "drive", "store"):
        table.add_column(name, overflow="fold")
    for name in ("capacity", "used", "of it", "chunks", "files", "their limit"):
        table.add_column(name, justify="right")
    table.add_column("by namespace", overflow="fold")
    for index, row in enumerate(rows):
        place = (escape(row.node), escape(row.drive), escape(row.store))
        last = index + 1 == len(rows)
        if row.error is not None:
            cells = (show_bytes(row.capacity_bytes), "", "", "", "", "")
            table.add_row(*place, *cells, f"[bold red]NO ANSWER[/]: {escape(row.error)}", end_section=last)
            continue
        table.add_row(
            *place,
            show_bytes(row.capacity_bytes),
            show_bytes(row.used_bytes),
            _percent(row.used_bytes, row.capacity_bytes),
            f"{row.chunks:,}",
            show_bytes(row.files_bytes) or "in memory",
            show_bytes(row.files_limit_bytes),
            "\n".join(f"{escape(name)} {show_bytes(used)}" for name, used in (row.namespaces or {}).items()),
            end_section=last,
        )
    table.add_row(
        f"{totals.stores - totals.unreachable} of {totals.stores} stores",
        "",
        "",
        show_bytes(totals.capacity_bytes),
        show_bytes(totals.used_bytes),
        _percent(totals.used_bytes, totals.capacity_bytes),
        f"{totals.chunks:,}",
        show_bytes(totals.files_bytes),
        style="bold",
    )
    console.print(table)


def drop(namespace: str, answers: Sequence[Answer[Dropped]], console: Console) -> None:
    """Print what became of the namespace on each store."""
    table = _table(f"kvstrata cache drop: {namespace}")
    for name in ("node", "drive", "store"):
        table.add_column(name, overflow="fold")
    for name in ("chunks deleted", "bytes", "not in index", "left"):
        table.add_column(name, justify="right")
    table.add_column("space on the drive", overflow="fold")
    for answer in answers:
        store, done = answer.place.store, answer.value
        place = (escape(answer.place.node), escape(store.drive), escape(store.address))
        if done is None:
            table.add_row(*place, "", "", "", "", f"[bold red]NO ANSWER[/]: {escape(str(answer.error))}")
            continue
        table.add_row(
            *place,
            f"{done.chunks:,}",
            show_bytes(done.used_bytes),
            f"{done.unindexed_chunks:,}",
            f"{done.left_chunks:,}",
            _SPACE[done.compaction],
        )
    console.print(table)


_SPACE = {
    Compaction.ASKED: "compaction asked for",
    Compaction.BUSY: "[yellow]was compacting already: run this again[/]",
    Compaction.NOT_NEEDED: "in memory: free",
}


def unreachable(answers: Sequence[Answer[Any]], console: Console) -> None:
    """Print a line for each store that did not answer."""
    for answer in answers:
        if answer.error is not None:
            place = f"{answer.place.node} {answer.place.store.drive} {answer.place.store.address}"
            console.print(
                f"[bold red]NO ANSWER[/] {escape(place)}: {escape(answer.error)}", highlight=False, soft_wrap=True
            )


def _table(title: str) -> Table:
    return Table(title=escape(title), title_justify="left", expand=False)


def _said(identity: Mapping[str, Any] | None, name: str) -> str:
    return escape(str((identity or {}).get(name, _UNKNOWN)))


def _percent(part: int | None, whole: int) -> str:
    return f"{(part or 0) / whole:.1%}" if whole else ""
