"""The command `kvstrata bench serve`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kvstrata.bench import host, procfs, terminal
from kvstrata.bench.ending import end_by_exception, own_folder
from kvstrata.bench.errors import BenchError
from kvstrata.bench.quiet import QuietWait
from kvstrata.bench.serving import judging, prepare, record
from kvstrata.bench.serving.local_stack import LocalStack
from kvstrata.bench.serving.prepare import Options
from kvstrata.bench.serving.record import Journal, Record, read_journal
from kvstrata.bench.serving.run import Plan, Progress, Runner
from kvstrata.bench.sizes import GIB

_PLAIN_WIDTH = 200
_DEFAULT = Options()


def serve(
    configurations: Annotated[
        str, typer.Option(help="Of none, native, dram, dram+ssd, ssd, resp, poc.")
    ] = _DEFAULT.configurations,
    sweep: Annotated[
        list[str] | None,
        typer.Option(help="Also variants of --base: chunk_size=64,256 piece_size=... connections=... hbm_gib=..."),
    ] = None,
    base: Annotated[str, typer.Option(help="What --sweep varies.")] = _DEFAULT.base,
    cross: Annotated[
        bool, typer.Option("--cross", help="Every combination of --sweep, not one axis at a time.")
    ] = False,
    workloads: Annotated[str, typer.Option(help="Of poc, longdoc, shared, trace.")] = _DEFAULT.workloads,
    settings: Annotated[list[str] | None, typer.Option("--set", help="A workload's NAME=VALUE.")] = None,
    scale: Annotated[float, typer.Option(help="Conversations and how many are active, times this.")] = 1.0,
    driver: Annotated[str, typer.Option(help=f"What sends: {', '.join(prepare.DRIVERS)}.")] = _DEFAULT.driver,
    rounds: Annotated[int, typer.Option(min=1, help="Fewer than 3 is a note in the report.")] = _DEFAULT.rounds,
    passes: Annotated[str, typer.Option(help="Each workload cold, then again.")] = _DEFAULT.passes,
    seed: Annotated[int, typer.Option(help="Of prompts, lengths and orders.")] = _DEFAULT.seed,
    minutes: Annotated[float, typer.Option(min=0.5, help="Most minutes of the whole run.")] = _DEFAULT.minutes,
    phase_minutes: Annotated[float, typer.Option(min=0.1, help="Most minutes of one load.")] = _DEFAULT.phase_minutes,
    wait_minutes: Annotated[
        float, typer.Option(min=0, help="Minutes to wait in all, before starts, while others use the CPU.")
    ] = 0.0,
    questions: Annotated[
        int, typer.Option(min=0, help="Prompts whose outputs are compared with the uncached run.")
    ] = _DEFAULT.questions,
    page_cache: Annotated[
        bool, typer.Option("--page-cache", help="Leave what the stores hold in the page cache before a warm load.")
    ] = False,
    model: Annotated[
        str, typer.Option(help="A folder, or lab-llama-136m, tiny-llama, llama-8b-shape, 32b-shape.")
    ] = _DEFAULT.model,
    dtype: Annotated[str | None, typer.Option(help="Default: the model's own.")] = None,
    load_format: Annotated[str | None, typer.Option(help="vLLM's; dummy needs no weights.")] = None,
    max_model_len: Annotated[int, typer.Option(min=128)] = _DEFAULT.max_model_len,
    tensor_parallel: Annotated[int, typer.Option(min=1)] = 1,
    hbm_gib: Annotated[float | None, typer.Option(help="KV of each engine. Default: vLLM's choice; CPU: 1.")] = None,
    dram_gib: Annotated[float, typer.Option(help="The DRAM tier.")] = _DEFAULT.dram_gib,
    staging_gib: Annotated[float, typer.Option(help="The DRAM of `ssd`.")] = _DEFAULT.staging_gib,
    engine: Annotated[list[str] | None, typer.Option(help="More of `vllm serve`: NAME=VALUE.")] = None,
    env: Annotated[list[str] | None, typer.Option(help="More environment of the engines: NAME=VALUE.")] = None,
    python: Annotated[
        Path | None, typer.Option(help="Has vllm and lmcache. Default without GPUs: the nodes' environment.")
    ] = None,
    kvrocks: Annotated[Path | None, typer.Option(help="Default: bin/kvrocks in the cache folder.")] = None,
    server: Annotated[str, typer.Option(help="kvrocks; or redis: no SSD tier is measured then.")] = _DEFAULT.server,
    accelerator: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = _DEFAULT.accelerator,
    stores: Annotated[int, typer.Option(min=1, help="Kvrocks instances.")] = 1,
    store_gib: Annotated[float, typer.Option(help="Chunks in each.")] = _DEFAULT.store_gib,
    replicas: Annotated[int, typer.Option(min=1, help="Engines behind a router, each with its own GPUs.")] = 1,
    cpu_threads: Annotated[int, typer.Option(min=1, help="Of each engine without GPU.")] = _DEFAULT.cpu_threads,
    start_minutes: Annotated[float, typer.Option(min=0.5, help="Most minutes of an engine's start.")] = 15.0,
    folder: Annotated[
        Path | None, typer.Option("--dir", help="Folder on the drive of the stores. Default: a temporary one.")
    ] = None,
    allow_tmpfs: Annotated[bool, typer.Option("--allow-tmpfs", help="Accept a --dir in memory.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from NAME.journal.jsonl.")] = False,
    output: Annotated[Path, typer.Option(help="Write NAME.json, NAME.journal.jsonl and NAME-logs/: this NAME.")] = Path(
        "bench-serve"
    ),
) -> None:
    """Compare ways to serve in one run. Exit 0: complete, 1: something failed or was cut short, 2: it could not run."""
    given = dict(locals())
    console, log = terminal.console(_PLAIN_WIDTH), terminal.console(_PLAIN_WIDTH, stderr=True)
    end_by_exception()
    options = _options(given)

    def say(text: str) -> None:
        moment = datetime.now(UTC).strftime("%H:%M:%S")
        log.print(f"[dim]{moment}[/] {escape(text)}", highlight=False, soft_wrap=True)

    try:
        plan = prepare.plan(options, prepare.model(options))
        found = _measure(plan, options, given, say)
    except BenchError as error:
        log.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None
    file = _beside(output, ".json")
    file.write_text(json.dumps(record.to_json(found), indent=1) + "\n")
    _show(found, console)
    console.print(f"{file} in {found.duration_s:.0f} s", highlight=False, soft_wrap=True)
    if not found.phases and not found.failures:
        raise typer.Exit(2)
    if not found.complete or any(verdict.ok is False for verdict in found.verdicts):
        raise typer.Exit(1)


def _options(given: dict[str, Any]) -> Options:
    renamed = {"env": "environment"}
    known = {field.name for field in fields(Options)}
    values = {renamed.get(name, name): value for name, value in given.items()}
    taken: dict[str, Any] = {name: value for name, value in values.items() if name in known and value is not None}
    return Options(**taken)


def _measure(plan: Plan, options: Options, given: dict[str, Any], say: Progress) -> Record:
    """Run the plan on this machine; what was measured is kept whatever ends it."""
    output: Path = given["output"]
    with _run_folder(given["folder"], options, allow_memory=given["allow_tmpfs"]) as folder:
        described = host.describe(procfs.mount_of(folder))
        logs = _beside(output, "-logs")
        stack = LocalStack(prepare.local(options, plan.configurations, folder, logs))
        asked = plan.to_json() | {"stack": dict(stack.describe())}
        journal = _beside(output, ".journal.jsonl")
        found = read_journal(journal, asked) if given["resume"] else Record(_now(), asked)
        found.host, found.stack = described, dict(stack.describe())
        for note in host.warnings(described):
            found.note(note)
        if plan.rounds < 3:
            found.note(f"{plan.rounds} rounds: fewer than three, the medians mean little")
        keeper = Journal(journal)
        keeper.begin(found)
        quiet = QuietWait(described["cores"], given["wait_minutes"] * 60)
        with stack:
            Runner(plan, stack, found, keeper, say, quiet, described["cores"]).run()
    return found


@contextmanager
def _run_folder(parent: Path | None, options: Options, *, allow_memory: bool) -> Iterator[Path]:
    """Yield the run's own folder on the drive to measure, which is removed at the end."""
    place = parent or host.default_folder()
    # A store writes what it evicted and has not compacted yet as well.
    host.check_folder(place, int(options.stores * options.store_gib * GIB) // 4, allow_memory)
    with own_folder(place, "kvstrata-bench-serve-") as folder:
        yield folder


def _beside(output: Path, ending: str) -> Path:
    # Not with_suffix(): a name may have a dot of its own.
    return output.with_name(output.name + ending)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _show(found: Record, console: Console) -> None:
    table = Table(title="bench serve", title_justify="left")
    for header in ("workload", "pass", "configuration", "round", "what was seen"):
        table.add_column(header, overflow="fold")
    for phase in sorted(found.phases, key=lambda p: (p.workload, p.pass_, p.configuration, p.round)):
        cells = (phase.workload, phase.pass_, phase.configuration, str(phase.round), judging.summary(phase))
        table.add_row(*map(escape, cells))
    console.print(table)
    for verdict in found.verdicts:
        state = {True: "[green]ok[/]", False: "[bold red]FAILED[/]", None: "[bold yellow]NOT PROVEN[/]"}[verdict.ok]
        console.print(f"outputs of {escape(verdict.configuration)}: {state} {escape(verdict.text())}", highlight=False)
    for entry in found.not_run:
        console.print(f"[bold yellow]NOT RUN[/] {escape(entry.configuration)}: {escape(entry.reason)}", soft_wrap=True)
    for failure in found.failures:
        told = f"{escape(failure.configuration)}, round {failure.round}: {escape(failure.error)}"
        console.print(f"[bold red]FAILED[/] {told}", highlight=False, soft_wrap=True)
    for note in found.notes:
        console.print(f"[bold yellow]NOTE[/] {escape(note)}", highlight=False, soft_wrap=True)
