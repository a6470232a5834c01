"""The report of `bench serve` in a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kvstrata.bench.serving import report_cells
from kvstrata.bench.serving.report import Report

_STATES = {True: "[green]identical[/]", False: "[bold red]DIFFERENT[/]", None: "[bold yellow]NOT PROVEN[/]"}


def show(report: Report, console: Console) -> None:
    """Print a table for each workload and pass, then what a reader must know."""
    record = report.record
    for workload, pass_ in report.groups:
        table = Table(title=f"{workload}, {pass_}", title_justify="left")
        for index, head in enumerate(report_cells.HEADS):
            table.add_column(head, justify="left" if index == 0 else "right", overflow="fold")
        for row in report.of(workload, pass_):
            table.add_row(*map(escape, report_cells.cells(report, row)))
        console.print(table)
    for each in report.gates:
        if each.min_load_gbps:
            cut = f"{each.cut} of {each.found} chunks that were found were answered as misses"
            name = escape(f"{each.configuration}, {each.workload}, {each.pass_}")
            _line(console, f"break-even of {name}: {cut}")
    for verdict in record.verdicts:
        _line(console, f"outputs of {escape(verdict.configuration)}: {_STATES[verdict.ok]} {escape(verdict.text())}")
    for entry in record.not_run:
        _line(console, f"[bold yellow]NOT RUN[/] {escape(entry.configuration)}: {escape(entry.reason)}")
    for failure in record.failures:
        told = f"{escape(failure.configuration)}, round {failure.round}: {escape(failure.error)}"
        _line(console, f"[bold red]FAILED[/] {told}")
    for remark in report.remarks:
        _line(console, f"[bold yellow]NOTE[/] {escape(remark)}")


def _line(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)
