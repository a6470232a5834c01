"""The commands `kvstrata drain` and `kvstrata undrain`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kvstrata.cluster import Cluster, DescribeError, InvalidClusterError
from kvstrata.drain.errors import NotDoneError, RefusedError
from kvstrata.drain.leave import Leaving
from kvstrata.drain.leave import drain as leave
from kvstrata.drain.rejoin import undrain as rejoin
from kvstrata.drain.replicas import Replica, chosen
from kvstrata.drain.site import Site, connected
from kvstrata.drain.status import Row, Seen
from kvstrata.drain.status import status as look
from kvstrata.verify.check import UnableError, UnmetError
from kvstrata.verify.cli import BadOptionError, cluster_of, console_of

SCHEMA = 1
_UNTIL = (
    "It stays out until undrain puts it back, or a router restarts: then that router takes every replica of the "
    "inventory that is healthy. With --stop its unit is stopped too, and no restart of a router brings it back"
)

Targets = Annotated[
    list[str] | None, typer.Argument(metavar="NODE[/REPLICA]", help="node1 is all of its replicas, node1/0 is one.")
]
Inventory = Annotated[
    Path | None, typer.Option("--inventory", "-i", help="Inventory of the site, as for Ansible.", show_default=False)
]
ClusterFile = Annotated[
    Path | None,
    typer.Option("--cluster", help="What playbooks/describe.yml wrote, instead of an inventory.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


class Exit(IntEnum):
    """The exit statuses."""

    DONE = 0
    REFUSED = 1
    UNREACHABLE = 2
    INTERRUPTED = 130


def drain(
    targets: Targets = None,
    inventory: Inventory = None,
    cluster_file: ClusterFile = None,
    show_status: Annotated[bool, typer.Option("--status", help="Change nothing; say who is in service.")] = False,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait for running requests.")] = 600.0,
    stop: Annotated[
        bool, typer.Option("--stop", help="Stop the units afterwards. With Dynamo that is always so.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also the last healthy replica, and past a router that can't be asked.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Take replicas out of service without a failed request. Exit 0: done, 1: refused or not in time, 2: unreachable.

    Every router chooses them no more; then their running requests are awaited.
    """
    with _failures():
        if show_status == bool(targets):
            raise BadOptionError("give either NODE[/REPLICA]... or --status")
        cluster = cluster_of(inventory, cluster_file)
        with connected(cluster, _say) as site:
            if show_status:
                _show(site, look(site), as_json)
                return
            replicas = chosen(cluster, targets or [])
            leave(site, replicas, Leaving(timeout, force, stop))
        _tell_drained(cluster, replicas, stop)


def undrain(
    targets: Targets = None,
    inventory: Inventory = None,
    cluster_file: ClusterFile = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for the engines to become healthy.")] = 900.0,
) -> None:
    """Put replicas back into service. Exit 0: done, 1: not in time, 2: a node could not be reached.

    Stopped units are started, their health is awaited, and every router chooses them again.
    """
    with _failures():
        if not targets:
            raise BadOptionError("give NODE[/REPLICA]...")
        cluster = cluster_of(inventory, cluster_file)
        replicas = chosen(cluster, targets)
        with connected(cluster, _say) as site:
            rejoin(site, replicas, timeout)
        _say(f"[bold green]OK[/]: {_names(replicas)} in service", plain=False)


def _tell_drained(cluster: Cluster, replicas: Sequence[Replica], stop: bool) -> None:
    until = "" if stop or cluster.profile == "dynamo" else f". {_UNTIL}"
    _say(f"[bold green]OK[/]: {_names(replicas)} drained{until}", plain=False)


def _names(replicas: Sequence[Replica]) -> str:
    return ", ".join(replica.name for replica in replicas)


def _say(text: str, plain: bool = True) -> None:
    line = f"[dim]..[/] {escape(text)}" if plain else text
    console_of(stderr=True).print(line, highlight=False, soft_wrap=True)


def _show(site: Site, rows: Sequence[Row], as_json: bool) -> None:
    if as_json:
        document = {"schema": SCHEMA, "site": site.cluster.site, "replicas": [row.as_json() for row in rows]}
        typer.echo(json.dumps(document, indent=2))
        return
    out = console_of(stderr=False)
    out.print(_table(site, rows))
    _sum_up(out, rows)


def _table(site: Site, rows: Sequence[Row]) -> Table:
    table = Table(title=f"replicas of {escape(site.cluster.site)}", title_justify="left")
    names = [router.name for router in site.routers]
    for heading in ("replica", "unit", "health", "running", "waiting", *(f"router on {name}" for name in names)):
        table.add_column(heading, justify="right" if heading in ("running", "waiting") else "left")
    for row in rows:
        counts = (str(row.load.running), str(row.load.waiting)) if row.load else ("-", "-")
        seen = [row.routers.get(name, Seen.UNKNOWN).value for name in names]
        table.add_row(row.replica.name, row.unit, "healthy" if row.healthy else "NOT healthy", *counts, *seen)
    return table


def _sum_up(out: Console, rows: Sequence[Row]) -> None:
    away = [row.replica.name for row in rows if not row.in_service]
    text = f"{len(rows) - len(away)} of {len(rows)} in service"
    out.print(f"{text}; not: {escape(', '.join(away))}" if away else text, highlight=False, soft_wrap=True)


@contextmanager
def _failures() -> Iterator[None]:
    """Turn what keeps a command from its work into a message and an exit status."""
    try:
        yield
    except RefusedError as error:
        status, said, why = Exit.REFUSED, "REFUSED", str(error)
    except NotDoneError as error:
        status, said, why = Exit.REFUSED, "NOT DONE", str(error)
    except (UnableError, UnmetError) as error:
        status, said, why = Exit.UNREACHABLE, "NOT DONE", f"{error}. How things are now: kvstrata drain --status"
    except (DescribeError, InvalidClusterError, BadOptionError, OSError) as error:
        status, said, why = Exit.UNREACHABLE, "COULD NOT START", str(error)
    except KeyboardInterrupt:
        status, said, why = Exit.INTERRUPTED, "INTERRUPTED", "how things are now: kvstrata drain --status"
    else:
        return
    console_of(stderr=True).print(f"[bold red]{said}[/]: {escape(why)}", highlight=False, soft_wrap=True)
    raise typer.Exit(status) from None
