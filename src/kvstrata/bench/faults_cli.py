"""The command `kvstrata bench faults`."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kvstrata.artifacts import environment, wheelhouse
from kvstrata.artifacts.lock import LockError, read_lock
from kvstrata.bench import faults_text, terminal
from kvstrata.bench.ending import end_by_exception
from kvstrata.bench.errors import BenchError
from kvstrata.bench.faults.rows import FAILED, NOT_CHECKED, Row
from kvstrata.bench.faults_run import Result, now, part, versions
from kvstrata.bench.server import version
from kvstrata.paths import PROJECT, cache_dir

ADAPTERS = ("kvstrata", "resp", "valkey")
ENGINES = ("kvrocks", "redis")
_PLAIN_WIDTH = 200


def faults(
    adapter: Annotated[
        list[str] | None, typer.Option(help=f"Of {', '.join(ADAPTERS)}; may be repeated. Default: all.")
    ] = None,
    engine: Annotated[
        list[str] | None, typer.Option(help=f"Of {', '.join(ENGINES)}; may be repeated. Default: those at hand.")
    ] = None,
    fault: Annotated[list[str] | None, typer.Option(help="By name; may be repeated. Default: all.")] = None,
    binary: Annotated[Path | None, typer.Option(help="Kvrocks. Default: bin/kvrocks in the cache folder.")] = None,
    output: Annotated[Path, typer.Option(help="Write NAME.json and NAME.md: this NAME.")] = Path("bench-faults"),
) -> None:
    """Break stores, networks and processes under LMCache's adapters. Exit 0: kvstrata passed, 1: it failed, 2: not run.

    LMCache's own adapters hang under some faults, which takes its time: about five minutes for one on one engine.
    """
    console, log = terminal.console(_PLAIN_WIDTH), terminal.console(_PLAIN_WIDTH, stderr=True)
    end_by_exception()
    rows: list[Row] = []
    try:
        kvrocks = binary or cache_dir() / "bin" / "kvrocks"
        servers = _servers(_known("--engine", engine, ENGINES), kvrocks, explicit=bool(engine), log=log)
        python = _python()
        seen = versions(python, {name: version(path) for name, path in servers.items()})
        for name in servers:
            for kind in _known("--adapter", adapter, ADAPTERS):
                rows += part(python, kind, name, fault or [], kvrocks, lambda line: log.print(escape(line)))
    except BenchError as error:
        log.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None
    result = Result(now(), seen, tuple(rows))
    as_json, as_markdown = (output.with_name(output.name + end) for end in (".json", ".md"))
    as_json.write_text(json.dumps(result.to_json(), indent=1) + "\n")
    as_markdown.write_text(faults_text.markdown(rows, seen))
    _show(rows, console)
    console.print(f"{as_json}, {as_markdown}", highlight=False, soft_wrap=True)
    if any(row.adapter == "kvstrata" and row.verdict == FAILED for row in rows):
        raise typer.Exit(1)


def _known(option: str, given: list[str] | None, allowed: tuple[str, ...]) -> list[str]:
    unknown = set(given or []) - set(allowed)
    if unknown:
        raise BenchError(f"{option} is {', '.join(sorted(unknown))}; allowed: {', '.join(allowed)}")
    return given or list(allowed)


def _servers(engines: list[str], kvrocks: Path, *, explicit: bool, log: Console) -> dict[str, Path]:
    """Return the servers at hand, those that are not told of loudly.

    Raises:
        BenchError: none is there, or one that was asked for.
    """
    paths = {"kvrocks": kvrocks if kvrocks.is_file() else None, "redis": shutil.which("redis-server")}
    found = {engine: Path(path) for engine in engines if (path := paths[engine]) is not None}
    for engine in engines:
        if engine not in found:
            text = f"no {engine} at hand: nothing is checked on it"
            if explicit or len(engines) == 1:
                raise BenchError(text)
            log.print(f"[bold yellow]{NOT_CHECKED}[/] {text}", highlight=False)
    if not found:
        raise BenchError("neither Kvrocks nor redis-server is at hand (docs/kvrocks.md; apt-get install redis-server)")
    return found


def _python() -> Path:
    try:
        return environment.ensure(read_lock(PROJECT / "artifacts.lock.yml").wheelhouse("cpu"), cache_dir())[0]
    except (LockError, wheelhouse.DownloadError, subprocess.CalledProcessError) as error:
        raise BenchError(f"no environment with LMCache: {error}") from error


def _show(rows: list[Row], console: Console) -> None:
    for engine in dict.fromkeys(row.engine for row in rows):
        headers, lines = faults_text.grid(rows, engine)
        table = Table(title=f"faults, on {engine}", title_justify="left", show_lines=True)
        for header in headers:
            table.add_column(header, overflow="fold")
        for line in lines:
            table.add_row(*(_coloured(text) for text in line))
        console.print(table)
    for reason in faults_text.not_checked(rows):
        console.print(f"[bold yellow]{NOT_CHECKED}[/] {escape(reason)}", highlight=False, soft_wrap=True)


def _coloured(text: str) -> str:
    for word, style in ((FAILED, "bold red"), (NOT_CHECKED, "bold yellow"), ("ok", "green")):
        if text == word or text.startswith((f"{word},", f"{word}:")):
            return f"[{style}]{word}[/]{escape(text[len(word) :])}"
    return escape(text)
