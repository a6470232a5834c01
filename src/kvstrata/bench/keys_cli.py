"""The command `kvstrata bench keys`."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kvstrata.bench import host, keys_run, terminal
from kvstrata.bench.errors import BenchError
from kvstrata.bench.l2_stores import KVROCKS, REDIS
from kvstrata.bench.server import version
from kvstrata.paths import cache_dir

_PLAIN_WIDTH = 160
# redis-server keeps everything in DRAM, and what is asked of it here does not depend on the drive.
_REDIS_SHARE = 10


def keys(
    folder: Annotated[
        Path | None, typer.Option("--dir", help="Folder on a drive. Default: a temporary one on a drive.")
    ] = None,
    binary: Annotated[Path | None, typer.Option(help="Kvrocks. Default: bin/kvrocks in the cache folder.")] = None,
    count: Annotated[int, typer.Option("--keys", min=1000, help="Chunks in the one namespace.")] = 1_000_000,
    evict: Annotated[int, typer.Option(min=1, help="Chunks to evict.")] = 10_000,
    samples: Annotated[int, typer.Option(min=100, help="Lookups of each kind.")] = 500,
    seed: Annotated[int, typer.Option(help="Seed of what is looked up.")] = 1,
    output: Annotated[Path, typer.Option(help="Write this JSON file.")] = Path("bench-keys.json"),
) -> None:
    """Measure kvstrata.l2 over a namespace of very many chunks. Exit 0: all that must hold does, 1: not, 2: not run."""
    console, log = terminal.console(_PLAIN_WIDTH), Console(stderr=True)
    try:
        place = folder or host.default_folder()
        described = host.describe(host.check_folder(place, 2 << 30, allow_memory=False))
        runs, versions, notes = [], {}, list(host.warnings(described))
        for store, program in (
            (KVROCKS, binary or cache_dir() / "bin" / "kvrocks"),
            (REDIS, Path(shutil.which("redis-server") or "redis-server")),
        ):
            if not program.is_file():
                notes.append(f"NO {store.upper()} at {program}: nothing is said about it")
                continue
            share = _REDIS_SHARE if store == REDIS else 1
            plan = keys_run.Plan(store, program, place, count // share, max(1, evict // share), samples, seed)
            log.print(f"[dim]..[/] {store}: {plan.keys} chunks", highlight=False)
            runs.append(keys_run.run(plan, lambda text: log.print(f"[dim]..[/] {escape(text)}", highlight=False)))
            versions[store] = version(program)
        if not runs:
            raise BenchError("; ".join(notes))
    except BenchError as error:
        log.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None
    report: dict[str, Any] = {
        "schema": keys_run.SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "host": described,
        "versions": versions,
        "notes": notes,
        "runs": runs,
    }
    output.write_text(json.dumps(report, indent=1) + "\n")
    headers, lines = keys_run.table(runs)
    table = Table(*headers)
    for line in lines:
        table.add_row(*(escape(cell) if cell != "NO" else "[bold red]NO[/]" for cell in line))
    console.print(table)
    for note in notes:
        console.print(f"[bold yellow]NOTE[/] {escape(note)}", highlight=False, soft_wrap=True)
    if not all(all(found["checks"].values()) for found in runs):
        raise typer.Exit(1)
