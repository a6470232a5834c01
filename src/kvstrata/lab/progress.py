"""Say what is being done and how long it took, one line a step."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape

from kvstrata.lab.errors import LabError

# Lines are not wrapped: they are read by programs too (molecule looks for "nothing changed").
console = Console(highlight=False, soft_wrap=True)


class Step:
    """One named step; `result` is what its closing line says."""

    def __init__(self, name: str) -> None:
        """Begin a step called `name`."""
        self.name = name
        self.result = "done"

    def note(self, text: str) -> None:
        """Print a detail of the step now."""
        console.print(f"[dim]{self.name}: {escape(text)}[/dim]")


@contextmanager
def step(name: str) -> Iterator[Step]:
    """Print `name: result in N s` when the block ends well; nothing when it raises."""
    current = Step(name)
    started = time.monotonic()
    yield current
    taken = time.monotonic() - started
    console.print(f"[bold]{name}[/bold]: {escape(current.result)} [dim]in {taken:.1f} s[/dim]")


@contextmanager
def errors_for_people() -> Iterator[None]:
    """End a command with status 1 and one line where a LabError says what is wrong."""
    try:
        yield
    except LabError as error:
        console.print(f"[bold red]error:[/bold red] {escape(str(error))}")
        raise typer.Exit(1) from error
