"""`kvstrata lab`: the command line of the lab."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from kvstrata.lab import hostpackages, lab, nodes, paths, shell
from kvstrata.lab import rerun as lab_rerun
from kvstrata.lab.errors import LabError
from kvstrata.lab.planted.cli import app as planted_app
from kvstrata.lab.progress import console, errors_for_people, step
from kvstrata.lab.spec import PRESETS, SUITES, preset
from kvstrata.lab.vmcli import app as vm_app

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Real systemd nodes in podman on this machine.",
)
app.add_typer(vm_app, name="vm")
app.add_typer(planted_app, name="planted")

Name = Annotated[str, typer.Option("--name", help=f"Which lab: {' or '.join(PRESETS)}.")]
Nodes = Annotated[int, typer.Option("--nodes", help="How many nodes.")]
Drives = Annotated[int, typer.Option("--drives", help="Drives per node.")]
DriveGib = Annotated[int, typer.Option("--drive-gib", help="Size of a drive in GiB (sparse).")]
MemoryGib = Annotated[int | None, typer.Option("--memory-gib", help="Memory limit per node in GiB.")]
Suites = Annotated[
    list[str] | None,
    typer.Option(
        "--suite", help=f"Debian release of node 1; again for node 2, and so on. Default {SUITES[0]} for all."
    ),
]
Release = Annotated[
    str | None,
    typer.Option(
        "--release",
        help="Id of a release that new nodes begin with; the first node builds it for later labs if none has yet.",
    ),
]


@app.command()
def packages() -> None:
    """Install the programs that the tests start: servers, tools of disks and networks. Starts none of them."""
    with errors_for_people():
        hostpackages.ensure_for_tests()


@app.command()
def up(
    name: Name = "lab",
    node_count: Nodes = 2,
    drives: Drives = 2,
    drive_gib: DriveGib = 4,
    memory_gib: MemoryGib = None,
    suites: Suites = None,
    release: Release = None,
) -> None:
    """Start the lab's nodes; what runs already is left alone."""
    with errors_for_people():
        lab.up(
            preset(
                name,
                nodes=node_count,
                drives=drives,
                drive_gib=drive_gib,
                memory_gib=memory_gib,
                suites=suites or SUITES[:1],
            ),
            release,
        )


@app.command()
def down(
    name: Name = "lab",
    keep_data: Annotated[bool, typer.Option("--keep-data", help="Keep the drives' images.")] = False,
) -> None:
    """Remove the lab: nodes, loop devices, drives, network, and what podman left in the host's network."""
    with errors_for_people():
        lab.down(preset(name), keep_data=keep_data)


@app.command()
def status(name: Name = "lab", node_count: Nodes = 2) -> None:
    """Show the nodes; exit 0 when all of them take a login, 1 otherwise."""
    with errors_for_people():
        rows = lab.status(preset(name, nodes=node_count))
    table = Table("node", "address", "container", "ssh", title=f"lab {name}")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    raise typer.Exit(0 if all(row[3] == "ok" for row in rows) else 1)


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def ssh(context: typer.Context, node: str, name: Name = "lab") -> None:
    """Log in to NODE, or run the given command there."""
    with errors_for_people():
        known = {container.node for container in nodes.containers(name)}
        if node not in known:
            raise LabError(f"node {node!r}: lab {name} has {', '.join(sorted(known)) or 'no nodes; run lab up'}")
        address = str(preset(name).address(node))
        tty = ("-t",) if not context.args and sys.stdin.isatty() else ()
        argv = [*lab.access(name).argv(address, *tty), *context.args]
    os.execvpe(argv[0], argv, shell.environment())  # noqa: S606 - ssh takes this terminal over


@app.command()
def rerun(
    most_s: Annotated[
        float | None, typer.Option("--most-s", help="Exit 1 also when it takes longer, in seconds.")
    ] = None,
    inventory: Annotated[Path, typer.Option("--inventory", help="Whose nodes.")] = Path("inventories/lab"),
) -> None:
    """Run the host roles again on deployed nodes, and say what that takes; exit 1 when it changes anything."""
    with errors_for_people():
        run = lab_rerun.rerun(inventory)
    for name, seconds in run.slowest.items():
        console.print(f"[dim]{seconds:6.1f} s  {escape(name)}[/dim]")
    hosts = ", ".join(run.hosts)
    changes = ", ".join(f"{host}: {count} changed" for host, count in run.changed.items()) or "nothing changed"
    console.print(f"hosts.yml again on {hosts}: {changes}, {run.seconds:.1f} s")
    raise typer.Exit(1 if run.changed or (most_s is not None and run.seconds > most_s) else 0)


@app.command()
def model() -> None:
    """Generate the lab model below the models folder, unless it is there."""
    from kvstrata.models import lab_llama

    with errors_for_people(), step("model") as current:
        made = lab_llama.ensure(paths.models_dir())
        current.result = f"{'generated' if made else 'present'} ({paths.models_dir() / lab_llama.NAME})"


def main() -> None:
    """Run the lab's command line by itself."""
    app()
