"""The command `kvstrata bench serve`."""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from kvstrata.bench import terminal
from kvstrata.bench.ending import end_by_exception
from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving import record, report_cli
from kvstrata.bench.serving import report as reports
from kvstrata.bench.serving.configurations import PRESETS
from kvstrata.bench.serving.drivers import NAMES as DRIVERS
from kvstrata.bench.serving.engine_options import POLICIES_WITHOUT_EVENTS
from kvstrata.bench.serving.measure import Keeping, on_site, on_this_machine
from kvstrata.bench.serving.prepare import Options
from kvstrata.bench.serving.record import Record
from kvstrata.cluster import DescribeError, InvalidClusterError, Prices, describe

_DEFAULT = Options()


def serve(
    configurations: Annotated[str | None, typer.Option(help=f"Of {', '.join(PRESETS)}. Default: all but resp.")] = None,
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
    driver: Annotated[str, typer.Option(help=f"What sends: {', '.join(DRIVERS)}.")] = _DEFAULT.driver,
    aiperf: Annotated[Path | None, typer.Option(help="AIPerf's program. Default: on PATH.")] = None,
    vllm: Annotated[Path | None, typer.Option(help="vLLM's program. Default: beside --python.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Fewer than 3 is a note in the report.")] = _DEFAULT.rounds,
    passes: Annotated[str, typer.Option(help="Each workload cold, then again.")] = _DEFAULT.passes,
    seed: Annotated[
        int | None, typer.Option(help="Of prompts and lengths. Default: 1; of a deployed site another each time.")
    ] = None,
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
    kv_dtype: Annotated[str, typer.Option(help="vLLM's --kv-cache-dtype.")] = _DEFAULT.kv_dtype,
    load_format: Annotated[str | None, typer.Option(help="vLLM's; dummy needs no weights.")] = None,
    max_model_len: Annotated[int, typer.Option(min=128)] = _DEFAULT.max_model_len,
    tensor_parallel: Annotated[int, typer.Option(min=1)] = 1,
    hbm_gib: Annotated[float | None, typer.Option(help="KV of each engine. Default: vLLM's choice; CPU: 1.")] = None,
    dram_gib: Annotated[float, typer.Option(help="The DRAM tier.")] = _DEFAULT.dram_gib,
    staging_gib: Annotated[float, typer.Option(help="The DRAM of `ssd`.")] = _DEFAULT.staging_gib,
    min_load_gbps: Annotated[
        float, typer.Option(min=0, help="Break-even of kvstrata.l2 in 1e9 bytes/s; 0 is off.")
    ] = _DEFAULT.min_load_gbps,
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
    router_policy: Annotated[
        str, typer.Option(help=f"Which replica gets a request: {', '.join(POLICIES_WITHOUT_EVENTS)}.")
    ] = _DEFAULT.router_policy,
    gpus: Annotated[str, typer.Option(help="Numbers of the GPUs to use, as nvidia-smi has them. Default: all.")] = "",
    cpu_threads: Annotated[int, typer.Option(min=1, help="Of each engine without GPU.")] = _DEFAULT.cpu_threads,
    start_minutes: Annotated[float, typer.Option(min=0.5, help="Most minutes of an engine's start.")] = 15.0,
    inventory: Annotated[
        Path | None, typer.Option("--inventory", "-i", help="Measure this site as it is deployed, through its router.")
    ] = None,
    node: Annotated[
        str | None, typer.Option(help="With -i: try --configurations on this node, whose units are restarted.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--dir", help="Folder on the drive of the stores. Default: a temporary one.")
    ] = None,
    allow_tmpfs: Annotated[bool, typer.Option("--allow-tmpfs", help="Accept a --dir in memory.")] = False,
    gpu_hour: Annotated[
        float | None, typer.Option(min=0, help="Price of a GPU for an hour. Default: the inventory's, with -i.")
    ] = None,
    currency: Annotated[str, typer.Option(help="Of --gpu-hour.")] = "USD",
    resume: Annotated[bool, typer.Option("--resume", help="Go on from NAME.journal.jsonl.")] = False,
    output: Annotated[
        Path, typer.Option(help="Write NAME.json, .html, .md, .journal.jsonl and NAME-logs/: this NAME.")
    ] = Path("bench-serve"),
) -> None:
    """Compare ways to serve in one run. Exit 0: complete, 1: something failed or was cut short, 2: it could not run."""
    given = dict(locals())
    console, log = terminal.console(report_cli.PLAIN_WIDTH), terminal.console(report_cli.PLAIN_WIDTH, stderr=True)
    end_by_exception()
    options = _options(given)

    def say(text: str) -> None:
        moment = datetime.now(UTC).strftime("%H:%M:%S")
        log.print(f"[dim]{moment}[/] {escape(text)}", highlight=False, soft_wrap=True)

    kept: list[Record] = []

    def finished(found: Record) -> None:
        kept.append(found)
        _beside(output, ".json").write_text(json.dumps(record.to_json(found), indent=1) + "\n")

    keeping = Keeping(_beside(output, ".journal.jsonl"), _beside(output, "-logs"), resume, finished)
    try:
        if inventory is not None:
            if router_policy != _DEFAULT.router_policy:
                raise BenchError(
                    f"--router-policy {router_policy} with --inventory: a site's router is as it is deployed"
                )
            if kv_dtype != _DEFAULT.kv_dtype:
                raise BenchError(
                    f"--kv-dtype {kv_dtype} with --inventory: a site's engines keep KV as they are deployed"
                )
            tried_on = _node(node, configurations, sweep)
            on_site(options, describe(inventory), tried_on, keeping, say, seed=seed)
        else:
            on_this_machine(options, keeping, say, folder=folder, allow_memory=allow_tmpfs, wait_minutes=wait_minutes)
    except (BenchError, DescribeError, InvalidClusterError) as error:
        log.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None
    (found,) = kept
    made = reports.make(found, None if gpu_hour is None else Prices(gpu_hour, currency))
    try:
        report_cli.deliver(made, _beside(output, ".html"), _beside(output, ".md"), console)
    except BenchError as error:
        log.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
    endings = ", ".join(str(_beside(output, end)) for end in (".json", ".html", ".md"))
    console.print(f"{endings} in {found.duration_s:.0f} s", highlight=False, soft_wrap=True)
    if not found.phases and not found.failures:
        raise typer.Exit(2)
    if not found.complete or any(verdict.ok is False for verdict in found.verdicts):
        raise typer.Exit(1)


def _node(node: str | None, configurations: str | None, sweep: list[str] | None) -> str | None:
    """Return the node on which configurations are tried, None for a site as it is deployed.

    Raises:
        BenchError: only one of both was given.
    """
    wanted = configurations is not None or bool(sweep)
    if wanted and node is None:
        raise BenchError("--configurations with --inventory needs --node: its units are restarted with each of them")
    if node is not None and not wanted:
        raise BenchError("--node without --configurations; allowed: both, or neither for the site as it is deployed")
    return node


def _options(given: dict[str, Any]) -> Options:
    renamed = {"env": "environment"}
    known = {field.name for field in fields(Options)}
    values = {renamed.get(name, name): value for name, value in given.items()}
    taken: dict[str, Any] = {name: value for name, value in values.items() if name in known and value is not None}
    return Options(**taken)


def _beside(output: Path, ending: str) -> Path:
    # Not with_suffix(): a name may have a dot of its own.
    return output.with_name(output.name + ending)
