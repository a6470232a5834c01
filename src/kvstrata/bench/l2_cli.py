"""The command `kvstrata bench l2`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kvstrata.artifacts import environment, wheelhouse
from kvstrata.artifacts.lock import LockError, read_lock
from kvstrata.bench import l2_cases, l2_text, terminal
from kvstrata.bench.ending import end_by_exception
from kvstrata.bench.errors import BenchError
from kvstrata.bench.host import default_folder
from kvstrata.bench.l2_results import Run, to_json
from kvstrata.bench.l2_run import Plan, run
from kvstrata.bench.l2_stores import KVROCKS, REDIS
from kvstrata.bench.sizes import parse_size
from kvstrata.paths import PROJECT, cache_dir

# Wide enough for the tables where no terminal says its width.
_PLAIN_WIDTH = 220
_VERDICTS = {"reached": "[green]reached[/]", "NOT REACHED": "[bold red]NOT REACHED[/]"}


@dataclass(frozen=True)
class _Size:
    """How much one case does."""

    chunks: int
    batch: int
    rounds: int
    passes: int


_FULL = _Size(chunks=32, batch=16, rounds=3, passes=3)
_QUICK = _Size(chunks=4, batch=2, rounds=1, passes=1)


def l2(
    folder: Annotated[
        Path | None, typer.Option("--dir", help="Folder on the drive to measure. Default: a temporary one on a drive.")
    ] = None,
    binary: Annotated[Path | None, typer.Option(help="Kvrocks. Default: bin/kvrocks in the cache folder.")] = None,
    server: Annotated[str, typer.Option(help="kvrocks; or redis: nothing is said about a drive then.")] = KVROCKS,
    clients: Annotated[
        str | None,
        typer.Option(help="Of kvstrata, resp, valkey (LMCache's adapters), and tier: kvstrata without LMCache."),
    ] = None,
    transports: Annotated[str, typer.Option(help="Of kvstrata's connections: tcp, unix.")] = "tcp,unix",
    sweep: Annotated[
        str | None,
        typer.Option(help="Vary TierConfig instead: all, or of piece, connections, depth, transport, instances."),
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds over all cases. Default: 3.")] = None,
    chunks: Annotated[int | None, typer.Option(min=2, help="Chunks of each case. Default: 32.")] = None,
    chunk: Annotated[str, typer.Option("--chunk-bytes", help="Size of a chunk.")] = "32MiB",
    batch: Annotated[int | None, typer.Option(min=1, help="Chunks stored or loaded at once. Default: 16.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of contents and orders.")] = 1,
    minutes: Annotated[float, typer.Option(min=0.5, help="Most minutes of the whole run.")] = 30.0,
    wait_minutes: Annotated[
        float, typer.Option(min=0, help="Most minutes to wait, in all, for others to leave the machine alone.")
    ] = 10.0,
    quick: Annotated[bool, typer.Option("--quick", help="kvstrata alone, 128 MiB: a test, no result.")] = False,
    allow_tmpfs: Annotated[bool, typer.Option("--allow-tmpfs", help="Accept a --dir in memory.")] = False,
    output: Annotated[Path, typer.Option(help="Write NAME.json and NAME.md: this NAME.")] = Path("bench-l2"),
) -> None:
    """Judge kvstrata.l2 by the drive and LMCache's own adapters. Exit 0: complete, 1: a case failed, 2: not run."""
    console, log = terminal.console(_PLAIN_WIDTH), terminal.console(_PLAIN_WIDTH, stderr=True)
    end_by_exception()
    size = _QUICK if quick else _FULL
    try:
        wanted, python, note = _clients(clients, quick)
        if note:
            log.print(f"[bold yellow]NOTE[/] {escape(note)}", highlight=False, soft_wrap=True)
        axes = [] if sweep == "all" else (sweep or "").split(",")
        plan = Plan(
            cases=l2_cases.sweep(axes, wanted[0], unix=transports == "unix")
            if sweep
            else l2_cases.cases(wanted, transports.split(",")),
            store=server,
            binary=_binary(server, binary),
            folder=folder or default_folder(),
            python=python,
            rounds=rounds or size.rounds,
            chunks=chunks or size.chunks,
            chunk_bytes=parse_size(chunk),
            batch=batch or size.batch,
            passes=size.passes,
            seed=seed,
            minutes=minutes,
            wait_minutes=0.0 if quick else wait_minutes,
            allow_memory=allow_tmpfs,
        )
        result = run(plan, lambda text: log.print(f"[dim]..[/] {escape(text)}", highlight=False, soft_wrap=True))
    except (BenchError, ValueError) as error:
        log.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None
    if note:
        result.notes.append(note)
    if quick:
        result.notes.append("--quick: what was stored stays in memtables; this shows that it works and not how fast")
    # Not with_suffix(): a name may have a dot of its own.
    as_json, as_markdown = (output.with_name(output.name + end) for end in (".json", ".md"))
    as_json.write_text(json.dumps(to_json(result), indent=1) + "\n")
    as_markdown.write_text(l2_text.render(result))
    _show(result, console)
    console.print(f"{as_json}, {as_markdown} in {result.duration_s:.0f} s", highlight=False, soft_wrap=True)
    if not result.complete:
        raise typer.Exit(1)


def _clients(given: str | None, quick: bool) -> tuple[list[str], Path, str]:
    """Return the clients, the interpreter for them, and what must be said about that.

    Raises:
        BenchError: they need LMCache, and its environment cannot be built.
    """
    clients = given.split(",") if given else (["kvstrata"] if quick else list(l2_cases.ADAPTERS))
    try:
        house = read_lock(PROJECT / "artifacts.lock.yml").wheelhouse("cpu")
        built = wheelhouse.is_complete(house, cache_dir()) and environment.exists(house, cache_dir())
        if quick and not given and not built:
            note = "NO LMCACHE on this machine (kvstrata artifacts environment cpu): the Tier was tried without it"
            return [l2_cases.TIER], Path(sys.executable), note
        if clients == [l2_cases.TIER] and not built:
            return clients, Path(sys.executable), ""
        return clients, environment.ensure(house, cache_dir())[0], ""
    except (LockError, wheelhouse.DownloadError, subprocess.CalledProcessError) as error:
        raise BenchError(f"no environment with LMCache: {error}; --clients tier needs none") from error


def _binary(server: str, binary: Path | None) -> Path:
    if server == REDIS:
        if found := shutil.which("redis-server"):
            return Path(found)
        raise BenchError("no redis-server on PATH: apt-get install redis-server")
    if server != KVROCKS:
        raise BenchError(f"--server is {server!r}; allowed: {KVROCKS}, {REDIS}")
    kvrocks = binary or cache_dir() / "bin" / "kvrocks"
    if not kvrocks.is_file():
        raise BenchError(f"no Kvrocks at {kvrocks}; name one with --binary, or try the benchmark with --server redis")
    return kvrocks


def _show(result: Run, console: Console) -> None:
    console.print(l2_text.raw_line(result), highlight=False)
    for grid in l2_text.grids(result):
        table = Table(title=grid.title, title_justify="left")
        for number, header in enumerate(grid.headers):
            table.add_column(header, justify="left" if number < 2 else "right")
        for number, cells in enumerate(grid.lines):
            last = number + 1 == len(grid.lines) or grid.lines[number + 1][0] != cells[0]
            table.add_row(*(_VERDICTS.get(cell, escape(cell)) for cell in cells), end_section=last)
        console.print(table)
    for failure in result.failures:
        console.print(f"[bold red]FAILED[/] {escape(failure.case)}, round {failure.round}: {escape(failure.error)}")
    for note in result.notes:
        console.print(f"[bold yellow]NOTE[/] {escape(note)}", highlight=False, soft_wrap=True)
