"""`kvstrata lab planted`: plant faults in the running lab, and see what `kvstrata verify` says."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from kvstrata.lab.planted import run as runs
from kvstrata.lab.planted.faults import FAULTS
from kvstrata.lab.planted.site import running
from kvstrata.lab.planted.verdict import markdown
from kvstrata.lab.progress import console, errors_for_people

app = typer.Typer(no_args_is_help=True, help="Faults planted in the running lab, each of which verify must name.")

_FAULTS = f"Which: {', '.join(fault.name for fault in FAULTS)}."
Fault = Annotated[str, typer.Argument(help=_FAULTS)]
Faults = Annotated[list[str] | None, typer.Argument(help=f"{_FAULTS} All where none is named.")]


@app.command("list")
def show() -> None:
    """List the faults, the check that names each, and how it is planted."""
    for fault in FAULTS:
        console.print(f"[bold]{fault.name}[/bold] ({fault.check}): {escape(fault.how)}")


@app.command()
def plant(fault: Fault) -> None:
    """Plant a fault and leave it there; `unplant` takes it away."""
    with errors_for_people():
        site, (chosen,) = running(), runs.named([fault])
        chosen.plant(site)
        site.settle(chosen.besides)
        console.print(f"{chosen.name} is planted: {escape(chosen.how)}")


@app.command()
def unplant() -> None:
    """Take every fault away, whichever are planted."""
    with errors_for_people():
        runs.clean(running())
        console.print("no fault is planted any more, all services are well")


@app.command()
def run(
    faults: Faults = None,
    output: Annotated[Path | None, typer.Option("--output", help="Write the rows there, as JSON.")] = None,
    table: Annotated[Path | None, typer.Option("--table", help="Write the table there, as Markdown.")] = None,
    after: Annotated[bool, typer.Option(help="Verify again after each fault.")] = True,
    most_s: Annotated[float, typer.Option("--most-s", help="Begin no further fault after so many seconds.")] = 3600,
) -> None:
    """Plant each fault, verify, take it away; exit 1 when one is not named, or anything else fails."""
    # So that `kill` ends it as Ctrl-C does, and what was planted is taken away.
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    deadline = time.monotonic() + most_s
    with errors_for_people():
        chosen, site = runs.named(faults or []), running()
        runs.clean(site)
        rows = []
        for fault in chosen:
            if time.monotonic() >= deadline:
                console.print(f"NOT CHECKED: {fault.name} and what follows, {most_s:.0f} s are over")
                break
            rows.append(runs.one(site, fault, lambda text: console.print(escape(text)), after=after))
            if output is not None:
                output.write_text(json.dumps([row.as_json() for row in rows], indent=1) + "\n")
            if table is not None:
                table.write_text(markdown(rows))
    named = sum(row.ok for row in rows)
    console.print(f"{named} of {len(chosen)} faults named, and nothing else")
    raise typer.Exit(0 if named == len(chosen) else 1)
