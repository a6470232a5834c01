"""The command `kvstrata bench`."""

from __future__ import annotations

import shutil
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from kvstrata.bench import html, markdown, results, runner, summary, table, terminal
from kvstrata.bench.ending import end_by_exception
from kvstrata.bench.errors import BenchError
from kvstrata.bench.faults_cli import faults
from kvstrata.bench.gpu_page.cli import page
from kvstrata.bench.host import default_folder
from kvstrata.bench.keys_cli import keys
from kvstrata.bench.l2_cli import l2
from kvstrata.bench.moved.cli import moved
from kvstrata.bench.policy_cli import policy
from kvstrata.bench.serving.cli import serve
from kvstrata.bench.serving.report_cli import report
from kvstrata.bench.sizes import GIB, MIB, parse_size
from kvstrata.bench.study import DEFAULT_STUDY, for_redis, read_study
from kvstrata.contract.cli import routing
from kvstrata.paths import cache_dir

# Wide enough for the table's columns where no terminal says its width.
_PLAIN_WIDTH = 200
_QUICK_BYTES = 16 * MIB
_DEFAULT_BYTES = 1 * GIB

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Measure the parts of the cache on this machine.",
)


app.command()(policy)
app.command()(l2)
app.command()(keys)
app.command()(faults)
app.command()(serve)
app.command()(report)
app.command()(page)
app.command()(routing)
app.command()(moved)


class ServerKind(StrEnum):
    """Which store is judged."""

    KVROCKS = "kvrocks"
    REDIS = "redis"


@app.command()
def store(
    folder: Annotated[
        Path | None, typer.Option("--dir", help="Folder on the drive to measure. Default: a temporary one on a drive.")
    ] = None,
    binary: Annotated[Path | None, typer.Option(help="Kvrocks. Default: bin/kvrocks in the cache folder.")] = None,
    server: Annotated[
        ServerKind, typer.Option(help="Judge redis-server instead: load axes only.")
    ] = ServerKind.KVROCKS,
    study_file: Annotated[Path, typer.Option("--study", help="What to vary, as YAML.")] = DEFAULT_STUDY,
    axes: Annotated[str | None, typer.Option(help="Vary these only: axis,...")] = None,
    repeats: Annotated[
        int, typer.Option(min=1, help="Rounds over all setups; fewer than 3 is a note in the report.")
    ] = 3,
    size: Annotated[str | None, typer.Option("--bytes", help="Values of each workload. Default: 1GiB.")] = None,
    seconds: Annotated[float, typer.Option(min=0.5, help="Most seconds of one workload.")] = 8.0,
    minutes: Annotated[float, typer.Option(min=0.5, help="Most minutes of the whole run.")] = 19.0,
    wait_minutes: Annotated[
        float, typer.Option(min=0, help="Minutes to wait in all, before setups, while other programs use the CPU.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of values and orders.")] = 1,
    quick: Annotated[
        bool, typer.Option("--quick", help="A few axes, 16 MiB, under a minute: a test, no result.")
    ] = False,
    allow_tmpfs: Annotated[bool, typer.Option("--allow-tmpfs", help="Accept a --dir in memory.")] = False,
    output: Annotated[Path, typer.Option(help="Write NAME.json, NAME.html and NAME.md: this NAME.")] = Path(
        "bench-store"
    ),
) -> None:
    """Measure Kvrocks against the raw drive and redis-server. Exit 0: complete, 1: a setup failed, 2: could not run."""
    console, log = terminal.console(_PLAIN_WIDTH), terminal.console(_PLAIN_WIDTH, stderr=True)
    end_by_exception()
    try:
        study = read_study(study_file)
        chosen = [axis.strip() for axis in axes.split(",")] if axes else (study.quick if quick else None)
        setups = study.setups(chosen)
        plan = runner.Plan(
            setups=for_redis(setups) if server is ServerKind.REDIS else setups,
            binaries=_binaries(server, binary),
            folder=folder or default_folder(),
            allow_memory=allow_tmpfs,
            value_bytes=_size(size) if size else (_QUICK_BYTES if quick else _DEFAULT_BYTES),
            seconds=seconds,
            minutes=min(minutes, 3.0) if quick else minutes,
            wait_minutes=wait_minutes,
            repeats=repeats,
            seed=seed,
        )
        run = runner.run(plan, lambda text: log.print(f"[dim]..[/] {escape(text)}", highlight=False, soft_wrap=True))
    except BenchError as error:
        log.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None
    if quick:
        run.notes.append("--quick: 16 MiB stay in memtables and caches; this shows that it works and not how fast")
    if repeats < 3:
        run.notes.append(f"{repeats} repeats: fewer than three, the medians mean little")
    rows = summary.summarize(run)
    # Not with_suffix(): a name may have a dot of its own.
    as_json, as_html, as_markdown = (output.with_name(output.name + end) for end in (".json", ".html", ".md"))
    results.write_json(as_json, run, rows)
    as_html.write_text(html.render(run, rows))
    as_markdown.write_text(markdown.render(run, rows))
    table.show(run, rows, console)
    files = f"{as_json}, {as_html}, {as_markdown}"
    console.print(f"{files} in {run.duration_s:.0f} s", highlight=False, soft_wrap=True)
    if run.failures or not run.complete:
        raise typer.Exit(1)


def _binaries(server: ServerKind, binary: Path | None) -> dict[str, Path]:
    """Return the servers at hand, by kind.

    Raises:
        BenchError: the one to judge is missing.
    """
    found = {}
    if redis := shutil.which("redis-server"):
        found["redis"] = Path(redis)
    if server is ServerKind.REDIS:
        if not found:
            raise BenchError("no redis-server on PATH: apt-get install redis-server")
        return found
    kvrocks = binary or cache_dir() / "bin" / "kvrocks"
    if not kvrocks.is_file():
        raise BenchError(
            f"no Kvrocks at {kvrocks}; name one with --binary (docs/kvrocks.md says where they come from), "
            "or try the benchmark itself with --server redis"
        )
    return found | {"kvrocks": kvrocks}


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise BenchError(f"--bytes: {error}") from error
