"""The result on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kvstrata.bench.results import COLD, SET, Row, Run

_COLUMNS = (
    "MB/s",
    "low-high",
    "at rest",
    "P50 ms",
    "P99 ms",
    "amp server",
    "amp process",
    "amp device",
    "CPU s/GiB client",
    "server",
    "others' cores",
    "to base",
    "to raw",
    "to DRAM",
)


def show(run: Run, rows: Sequence[Row], console: Console) -> None:
    """Print raw drive, medians, failures and notes."""
    if run.raw:
        write, read = (median(getattr(sample, name) for sample in run.raw) for name in ("write_mb_s", "read_mb_s"))
        console.print(
            f"raw O_DIRECT ({escape(run.raw[0].tool)}): write {write:.0f}, read {read:.0f} MB/s", highlight=False
        )
    console.print(_table(run, rows))
    for failure in run.failures:
        console.print(f"[bold red]FAILED[/] {escape(failure.setup)}, round {failure.repeat}: {escape(failure.error)}")
    for note in run.notes:
        console.print(f"[bold yellow]NOTE[/] {escape(note)}", highlight=False, soft_wrap=True)


def amplifications(row: Row) -> tuple[float | None, float | None, float | None]:
    """Return a row's amplification by server, process and device: of writes after SET, else of reads."""
    if row.workload == SET:
        return row.write_amp_server, row.write_amp_process, row.write_amp_device
    return row.read_amp_server, row.read_amp_process, row.read_amp_device


def number(value: float | None, form: str = ".2f") -> str:
    """Return a number as text, and nothing for None."""
    return "" if value is None else format(value, form)


def doubts(row: Row) -> str:
    """Return what a reader must know of a row, or nothing."""
    found = []
    if not row.as_named:
        found.append("NOT COLD" if row.workload == COLD else "NOT WARM")
    if row.capped:
        found.append("time ran out")
    return ", ".join(found)


def _table(run: Run, rows: Sequence[Row]) -> Table:
    title = f"kvstrata bench store: medians of {run.repeats}, {run.budget['bytes'] / (1 << 20):.0f} MiB each"
    table = Table(title=title, title_justify="left")
    table.add_column("workload", no_wrap=True)
    table.add_column("setup", overflow="fold")
    for name in _COLUMNS:
        table.add_column(name, justify="right")
    table.add_column("")
    # By workload, for that is what a reader compares.
    ordered = sorted(rows, key=lambda row: ("set", "get_cold", "get_warm", "mixed").index(row.workload))
    for index, row in enumerate(ordered):
        last = index + 1 == len(ordered) or ordered[index + 1].workload != row.workload
        table.add_row(
            row.workload,
            escape(row.setup),
            number(row.mb_s, ".0f"),
            f"{row.mb_s_low:.0f}-{row.mb_s_high:.0f}",
            number(row.rest_mb_s, ".0f"),
            number(row.p50_ms),
            number(row.p99_ms),
            *(number(value) for value in amplifications(row)),
            number(row.client_cpu_s_per_gib),
            number(row.server_cpu_s_per_gib),
            number(row.foreign_cores),
            number(row.to_base),
            number(row.to_raw),
            number(row.to_dram),
            doubts(row),
            end_section=last,
        )
    return table
