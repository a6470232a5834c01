"""The command `kvstrata bench report`: the report of a run, made from its file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from kvstrata.bench import terminal
from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving import report as reports
from kvstrata.bench.serving import report_html, report_markdown, report_table
from kvstrata.bench.serving.report_file import read
from kvstrata.cluster import Prices

PLAIN_WIDTH = 240


def report(
    file: Annotated[Path, typer.Argument(help="What bench serve wrote: NAME.json, or packed with gzip.")],
    html: Annotated[Path | None, typer.Option(help="Write the page into this file.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the tables as Markdown into this file.")] = None,
    gpu_hour: Annotated[
        float | None, typer.Option(min=0, help="Price of a GPU for an hour. Default: the run's inventory's.")
    ] = None,
    currency: Annotated[str, typer.Option(help="Of --gpu-hour.")] = "USD",
) -> None:
    """Make the report of a run of bench serve again. Exit 0: made, 2: the file could not be read or written."""
    console, log = terminal.console(PLAIN_WIDTH), terminal.console(PLAIN_WIDTH, stderr=True)
    try:
        made = reports.make(read(file), None if gpu_hour is None else Prices(gpu_hour, currency))
        write(made, html, markdown)
    except BenchError as error:
        log.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None
    report_table.show(made, console)


def write(made: reports.Report, html: Path | None, markdown: Path | None) -> None:
    """Write the forms that are asked for.

    Raises:
        BenchError: a file cannot be written.
    """
    for path, text in ((html, report_html.render), (markdown, report_markdown.render)):
        if path is not None:
            try:
                path.write_text(text(made), encoding="utf-8")
            except OSError as error:
                raise BenchError(f"{path}: {error.strerror or error}") from error


def deliver(made: reports.Report, html: Path, markdown: Path, console: Console) -> None:
    """Print the report and write both forms."""
    report_table.show(made, console)
    write(made, html, markdown)
