"""The command `kvstrata verify-diff`: what changed between two documents that are there already."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from kvstrata.verify import changes, keep
from kvstrata.verify.compare import TOLERANCE, Differences, compare
from kvstrata.verify.keep import UnreadableError

Tolerance = Annotated[
    float, typer.Option(min=0, help="Share by which a time to first token may differ from the earlier run's.")
]


def verify_diff(
    before: Annotated[Path, typer.Argument(help="JSON of the earlier run.")],
    after: Annotated[Path, typer.Argument(help="JSON of the later run.")],
    tolerance: Tolerance = TOLERANCE,
    as_json: Annotated[bool, typer.Option("--json", help="Print the differences as JSON.")] = False,
) -> None:
    """Compare two runs of verify. Exit 0: nothing got worse, 1: something did, 2: a file could not be read."""
    out, err = Console(soft_wrap=True), Console(stderr=True, soft_wrap=True)
    try:
        differences = compare(keep.load(before), keep.load(after), tolerance)
    except UnreadableError as error:
        err.print(f"[bold magenta]COULD NOT COMPARE[/]: {escape(str(error))}", highlight=False)
        raise typer.Exit(2) from None
    if as_json:
        typer.echo(json.dumps(differences.as_json(), indent=2))
    else:
        show(differences, out)
    raise typer.Exit(1 if differences.worse else 0)


def show(differences: Differences, console: Console) -> None:
    """Print the differences for people."""
    for line in changes.lines(differences):
        console.print(escape(line), highlight=False, soft_wrap=True)
