"""The commands `kvstrata cache ls|du|drop`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any

import redis
import typer
from rich.console import Console
from rich.markup import escape

from kvstrata.cache import drop as dropping
from kvstrata.cache import reach, tables
from kvstrata.cache.drop import Dropped
from kvstrata.cache.progress import DropProgress
from kvstrata.cache.reach import Answer, Place
from kvstrata.cache.rows import namespace_rows, store_rows, totals
from kvstrata.cache.survey import Holding, Survey, take
from kvstrata.cluster import Cluster, DescribeError, InvalidClusterError
from kvstrata.l2.names import checked_namespace
from kvstrata.verify.check import Json
from kvstrata.verify.cli import BadOptionError, cluster_of, console_of
from kvstrata.verify.shell import Shell

SCHEMA = 1
# Wide enough for the tables where no terminal says its width.
_PLAIN_WIDTH = 180
_LOOK_S = 10.0
# A page of deletions behind a store's other work.
_DROP_S = 60.0

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="List, size and drop the namespaces on the stores of a site.",
)

Inventory = Annotated[
    Path | None, typer.Option("--inventory", "-i", help="Inventory of the site, as for Ansible.", show_default=False)
]
ClusterFile = Annotated[
    Path | None,
    typer.Option("--cluster", help="What playbooks/describe.yml wrote, instead of an inventory.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]


class Exit(IntEnum):
    """The exit statuses."""

    DONE = 0
    REFUSED = 1
    UNREACHABLE = 2
    INTERRUPTED = 130


class RefusedError(Exception):
    """What was asked for is not done; the message says why, and what would be."""


@app.command()
def ls(inventory: Inventory = None, cluster_file: ClusterFile = None, as_json: AsJson = False) -> None:
    """Print what each namespace stands for and what it takes. Exit 0: done, 2: a store could not be reached."""
    with _failures(as_json):
        cluster = _read(inventory, cluster_file)
        with reach.shells(cluster) as shells:
            answers = _look(cluster, shells)
        rows = namespace_rows(answers, cluster.namespaces)
        status = _status(answers)
        if as_json:
            document: dict[str, Json] = {
                "current": list(cluster.namespaces),
                "used_bytes": sum(row.used_bytes for row in rows),
                "chunks": sum(row.chunks for row in rows),
                "namespaces": [row.as_json() for row in rows],
                "unreachable": [_error_json(answer) for answer in answers if answer.error is not None],
            }
            _print(document, cluster.site, status)
        else:
            out = _out()
            tables.ls(cluster.site, rows, out)
            tables.unreachable(answers, out)
        raise typer.Exit(status)


@app.command()
def du(inventory: Inventory = None, cluster_file: ClusterFile = None, as_json: AsJson = False) -> None:
    """Print how full each store is, and with what. Exit 0: done, 2: a store could not be reached."""
    with _failures(as_json):
        cluster = _read(inventory, cluster_file)
        with reach.shells(cluster) as shells:
            answers = _look(cluster, shells)
        rows = store_rows(answers)
        whole = totals(rows)
        status = _status(answers)
        if as_json:
            _print({"stores": [row.as_json() for row in rows], "totals": whole.as_json()}, cluster.site, status)
        else:
            tables.du(cluster.site, rows, whole, _out())
        raise typer.Exit(status)


@app.command()
def drop(
    namespace: Annotated[str, typer.Argument(help="As `kvstrata cache ls` prints it.", show_default=False)],
    inventory: Inventory = None,
    cluster_file: ClusterFile = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also the namespace that the inventory gives.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete a namespace from all stores. Exit 0: done, 1: refused, 2: a store could not be reached.

    The other stores are done then. Can be interrupted, and run again for the rest.
    """
    with _failures(as_json):
        _check_name(namespace)
        cluster = _read(inventory, cluster_file)
        _refuse_current(cluster, namespace, force)
        err = console_of(stderr=True)
        with reach.shells(cluster) as shells:
            before = _look(cluster, shells)
            there = _held(before, namespace)
            tables.unreachable(before, err)
            _confirm(namespace, there, sum(answer.error is None for answer in before), yes, err)
            answers = _drop(cluster, shells, namespace, there, err)
        status = _status(answers)
        if as_json:
            document: dict[str, Json] = {
                "namespace": namespace,
                "current": namespace in cluster.namespaces,
                "stores": [_dropped_json(answer) for answer in answers],
                "totals": _dropped_totals(answers),
            }
            _print(document, cluster.site, status)
        else:
            out = _out()
            tables.drop(namespace, answers, out)
            out.print(_verdict(answers), highlight=False, soft_wrap=True)
        raise typer.Exit(status)


# -- asking the stores -----------------------------------------------------------------------------


def _read(inventory: Path | None, cluster_file: Path | None) -> Cluster:
    console_of(stderr=True).print(
        f"[dim]..[/] reading {escape(str(inventory or cluster_file))}", highlight=False, soft_wrap=True
    )
    return cluster_of(inventory, cluster_file)


def _look(cluster: Cluster, shells: Mapping[str, Shell]) -> list[Answer[Survey]]:
    return reach.ask(cluster, shells, take, _LOOK_S)


def _held(answers: Sequence[Answer[Survey]], namespace: str) -> Holding:
    surveys = (answer.value for answer in answers if answer.value is not None)
    return sum((survey.holdings.get(namespace, Holding()) for survey in surveys), Holding())


def _drop(
    cluster: Cluster, shells: Mapping[str, Shell], namespace: str, there: Holding, err: Console
) -> list[Answer[Dropped]]:
    keep_description = namespace in cluster.namespaces
    with DropProgress(err, namespace, there.chunks, there.used_bytes) as progress:

        def question(client: redis.Redis) -> Dropped:
            return dropping.drop(client, namespace, progress.note, keep_description)

        return reach.ask(cluster, shells, question, _DROP_S)


# -- refusing --------------------------------------------------------------------------------------


def _check_name(namespace: str) -> None:
    try:
        checked_namespace(namespace)
    except ValueError as error:
        raise RefusedError(str(error)) from error


def _refuse_current(cluster: Cluster, namespace: str, force: bool) -> None:
    if force:
        return
    if namespace in cluster.namespaces:
        raise RefusedError(
            f"{namespace} is the namespace of this inventory: its engines use it. "
            "Allowed: another one, or --force, after which they compute its chunks anew"
        )
    if not cluster.namespaces:
        raise RefusedError(
            "the inventory gives no namespace (its wheelhouse is not in artifacts.lock.yml), so that nobody can tell "
            f"whether engines use {namespace}. Allowed: --force"
        )


def _confirm(namespace: str, there: Holding, stores: int, yes: bool, err: Console) -> None:
    what = f"{there.chunks:,} chunks ({tables.show_bytes(there.used_bytes)}) of {namespace} on {_stores(stores)}"
    if yes:
        err.print(f"[dim]..[/] deleting {escape(what)}", highlight=False, soft_wrap=True)
        return
    if not sys.stdin.isatty():
        raise RefusedError(f"would delete {what}, and there is no terminal to ask on. Allowed: --yes")
    try:
        confirmed = typer.confirm(f"Delete {what}?", err=True)
    except typer.Abort:
        confirmed = False
    if not confirmed:
        raise RefusedError("not confirmed; nothing was deleted")


# -- telling ---------------------------------------------------------------------------------------


@contextmanager
def _failures(as_json: bool) -> Iterator[None]:
    """Turn what keeps a command from its work into a message, a document and an exit status."""
    try:
        yield
    except RefusedError as error:
        status, said, why = Exit.REFUSED, "REFUSED", str(error)
    except (DescribeError, InvalidClusterError, BadOptionError, OSError) as error:
        status, said, why = Exit.UNREACHABLE, "COULD NOT START", str(error)
    except KeyboardInterrupt:
        status, said = Exit.INTERRUPTED, "INTERRUPTED"
        why = "what was deleted stays deleted; the same command again does the rest"
    else:
        return
    if as_json:
        _print({}, None, status, why)
    console_of(stderr=True).print(f"[bold red]{said}[/]: {escape(why)}", highlight=False, soft_wrap=True)
    raise typer.Exit(status) from None


def _out() -> Console:
    console = console_of(stderr=False)
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    return console


def _status(answers: Sequence[Answer[Any]]) -> Exit:
    return Exit.UNREACHABLE if any(answer.error is not None for answer in answers) else Exit.DONE


def _print(document: Mapping[str, Json], site: str | None, status: Exit, error: str | None = None) -> None:
    head: dict[str, Json] = {"schema": SCHEMA, "site": site, "exit_code": int(status), "error": error}
    typer.echo(json.dumps(head | dict(document), indent=2))


def _place_json(place: Place) -> dict[str, Json]:
    return {"node": place.node, "drive": place.store.drive, "store": place.store.address}


def _error_json(answer: Answer[Any]) -> Json:
    return _place_json(answer.place) | {"error": answer.error}


def _dropped_json(answer: Answer[Dropped]) -> Json:
    done = answer.value
    return _place_json(answer.place) | {
        "chunks": done.chunks if done else None,
        "used_bytes": done.used_bytes if done else None,
        "unindexed_chunks": done.unindexed_chunks if done else None,
        "left_chunks": done.left_chunks if done else None,
        "compaction": done.compaction.value if done else None,
        "error": answer.error,
    }


def _dropped_totals(answers: Sequence[Answer[Dropped]]) -> dict[str, Json]:
    done = [answer.value for answer in answers if answer.value is not None]
    return {
        "stores": len(answers),
        "unreachable": len(answers) - len(done),
        "chunks": sum(one.chunks for one in done),
        "used_bytes": sum(one.used_bytes for one in done),
        "unindexed_chunks": sum(one.unindexed_chunks for one in done),
        "left_chunks": sum(one.left_chunks for one in done),
    }


def _stores(count: int) -> str:
    return f"{count} store{'' if count == 1 else 's'}"


def _verdict(answers: Sequence[Answer[Dropped]]) -> str:
    done = [answer.value for answer in answers if answer.value is not None]
    chunks = sum(one.chunks + one.unindexed_chunks for one in done)
    what = (
        f"{chunks:,} chunks, {tables.show_bytes(sum(one.used_bytes for one in done))} deleted on {_stores(len(done))}"
    )
    left = sum(one.left_chunks for one in done)
    if left:
        what += f"; {left:,} chunks were stored meanwhile: an engine still uses this namespace"
    if len(done) < len(answers):
        missing = len(answers) - len(done)
        return f"[bold magenta]NOT ALL[/]: {what}; {missing} did not answer: run this again when they do"
    return f"[bold green]OK[/]: {what}"
