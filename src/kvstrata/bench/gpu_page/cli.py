"""The command `kvstrata bench page`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from kvstrata.bench import terminal
from kvstrata.bench.errors import BenchError
from kvstrata.bench.gpu_page import committed
from kvstrata.bench.gpu_page.page import make

_PLAIN_WIDTH = 120


def page(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="JSON of bench serve, l2 and store. Default: benchmarks/results/gpu-*.json and .json.gz."),
    ] = None,
    into: Annotated[
        Path, typer.Option(help="The page; its plots go into the folder plots beside it.")
    ] = committed.PROJECT_PAGE,
) -> None:
    """Make a page with plots of what the benchmarks wrote. Exit 0: made, 2: a file could not be read or written."""
    console, log = terminal.console(_PLAIN_WIDTH), terminal.console(_PLAIN_WIDTH, stderr=True)
    try:
        given = files or committed.sources()
        if not given:
            raise BenchError(f"nothing like {committed.PATTERN} below {committed.RESULTS}; name the files")
        made = make(given, committed.COMMAND).files(into)
        for path, text in made.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        gone = committed.orphans(into, made)
        for path in gone:
            path.unlink()
    except (BenchError, OSError) as error:
        log.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None
    console.print(f"{into}: {len(given)} files, {len(made) - 1} plots", highlight=False, soft_wrap=True)
