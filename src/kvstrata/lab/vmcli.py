"""`kvstrata lab vm`: the command line of the lab's virtual machines."""

import json
import os
import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from kvstrata.lab import shell, vm
from kvstrata.lab.progress import console, errors_for_people
from kvstrata.lab.vmspec import NAMES, VmSpec

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Emulated machines with a kernel of their own and NVMe drives (QEMU).",
)

Name = Annotated[str, typer.Argument(help=f"Which machine: {' or '.join(NAMES)}.")]
Drives = Annotated[int, typer.Option("--drives", help="NVMe drives, each with a controller of its own.")]
DriveGib = Annotated[int, typer.Option("--drive-gib", help="Size of a drive in GiB (sparse).")]
Lba = Annotated[int, typer.Option("--lba", help="Bytes of a sector: 512 or 4096.")]
Shared = Annotated[
    bool,
    typer.Option(
        "--shared",
        help="Boot with, besides, a controller of two namespaces and a namespace of two controllers.",
    ),
]


@app.command()
def up(name: Name, drives: Drives = 2, drive_gib: DriveGib = 4, lba: Lba = 512, shared: Shared = False) -> None:
    """Start the machine with empty drives; one that runs already is left alone."""
    with errors_for_people():
        vm.up(VmSpec(name, drives, drive_gib, lba, shared))


@app.command()
def down(
    names: Annotated[list[str] | None, typer.Argument(help="Which machines; all of them when none is named.")] = None,
) -> None:
    """End machines and remove their disks and drives."""
    with errors_for_people():
        for name in names or NAMES:
            vm.down(name)


@app.command()
def status() -> None:
    """Show the machines; exit 0 when all that are there take a login, 1 otherwise."""
    with errors_for_people():
        rows = vm.status()
    table = Table("machine", "address", "state", "ssh", title="machines")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    raise typer.Exit(0 if all(row[2] == "absent" or row[3] == "ok" for row in rows) else 1)


@app.command()
def written(name: Name) -> None:
    """Print, as JSON, a digest of every drive of NAME and how often it was written to."""
    with errors_for_people():
        found = vm.written(name)
    print(json.dumps([asdict(drive) for drive in found], indent=1))


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def ssh(context: typer.Context, name: Name) -> None:
    """Log in to NAME, or run the given command there."""
    with errors_for_people():
        vm.running(name)
        tty = ("-t",) if not context.args and sys.stdin.isatty() else ()
        argv = [*vm.access(name).argv("127.0.0.1", *tty), *context.args]
    os.execvpe(argv[0], argv, shell.environment())  # noqa: S606 - ssh takes this terminal over
