"""The command `kvstrata plan`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from kvstrata.bench import terminal
from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving.report_file import read as read_bench
from kvstrata.cluster import DescribeError, InvalidClusterError, describe, load
from kvstrata.plan import against_text, report
from kvstrata.plan.against import compare
from kvstrata.plan.assess import LENGTHS, Plan, Question, assess
from kvstrata.plan.config_json import read_config
from kvstrata.plan.curve import THINK_S
from kvstrata.plan.deployment import Deployment
from kvstrata.plan.document import SCHEMA, as_document
from kvstrata.plan.inventory import FromInventory, from_cluster
from kvstrata.plan.measured import Measured, read_measured
from kvstrata.plan.nodes import Node, named_node, read_node
from kvstrata.plan.presets import model as named_model
from kvstrata.plan.reading import BadInputError
from kvstrata.plan.shape import Shape

BAD_INPUT = 2
# Wide enough for the table of figures where no terminal says its width.
_PLAIN_WIDTH = 150
_WIDE = 220


def plan(
    node: Annotated[
        str | None, typer.Option("--node", "-n", help="A node's YAML or JSON file, or as 8xH100-SXM.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="config.json, a model's folder, or a name as Llama-3.1-8B.")
    ] = None,
    inventory: Annotated[
        Path | None, typer.Option("--inventory", "-i", help="Inventory: model, DRAM tier, drives, replicas.")
    ] = None,
    cluster: Annotated[
        Path | None, typer.Option(help="What playbooks/describe.yml wrote, instead of an inventory.")
    ] = None,
    measured: Annotated[
        list[Path] | None, typer.Option(help="A drives' fact, a verify report, or figures of one's own; several.")
    ] = None,
    nodes: Annotated[int | None, typer.Option(help="Nodes of the site, all alike. Default 1.")] = None,
    tensor_parallel: Annotated[int | None, typer.Option("--tp", help="GPUs of one replica. Default 1.")] = None,
    replicas: Annotated[int | None, typer.Option(help="Replicas on a node. Default: as many as fit.")] = None,
    kv_dtype: Annotated[str | None, typer.Option(help="vLLM's --kv-cache-dtype. Default auto.")] = None,
    chunk_tokens: Annotated[int | None, typer.Option(help="Tokens of a chunk. Default 256.")] = None,
    dram_cache_gib: Annotated[
        float | None, typer.Option(help="DRAM tier of a node in GiB, 0 for none. Default: what memory allows.")
    ] = None,
    kv_cache_gib: Annotated[
        float | None, typer.Option(help="HBM for KV on a GPU in GiB. Default: what the weights leave.")
    ] = None,
    prompt_tokens: Annotated[
        list[int] | None, typer.Option(min=2, help="Judge prompts of this length too; several.")
    ] = None,
    loads: Annotated[
        int | None, typer.Option(min=1, help="Loads at once on a node. Default: one for each replica.")
    ] = None,
    users: Annotated[list[int] | None, typer.Option(min=1, help="Users of the site for the curve; several.")] = None,
    think_s: Annotated[
        list[float] | None, typer.Option(min=0, help="Seconds that users think, on average; several.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the simulated conversations.")] = 1,
    against: Annotated[
        Path | None, typer.Option(help="Predict what this file of bench serve measured, and compare; other exit codes.")
    ] = None,
    simulate: Annotated[bool, typer.Option(help="Simulate the working-set curve and the wear.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the report.")] = False,
    output: Annotated[Path | None, typer.Option(help="Also write the JSON into this file.")] = None,
) -> None:
    """Tell which tiers pay, before anything is bought. Exit 0: every tier pays, 1: one would hurt, 2: bad input.

    With --against: 0: all predictions within 15 %, 1: some are off, 2: bad input.
    """
    changes: dict[str, Any] = {
        "nodes": nodes,
        "tensor_parallel": tensor_parallel,
        "replicas": replicas,
        "kv_dtype": kv_dtype,
        "chunk_tokens": chunk_tokens,
        "dram_cache_gib": dram_cache_gib,
        "kv_cache_gib": kv_cache_gib,
    }
    question = Question(
        lengths=tuple(prompt_tokens or LENGTHS),
        loads=loads,
        users=tuple(users or ()),
        thinks=tuple(think_s) if think_s else THINK_S,
        seed=seed,
        simulated=simulate,
    )
    try:
        baselines = Measured()
        for path in measured or ():
            baselines = baselines.over(read_measured(path))
        if against is not None:
            status = _compare(against, node, model, baselines, as_json, output)
            raise typer.Exit(status)
        site = _site(_needed(node), model, inventory, cluster)
        given = {name: value for name, value in changes.items() if value is not None}
        site = replace(site, deployment=replace(site.deployment, **given))
        found = assess(site.node, site.deployment, baselines, question)
        _deliver(found, site.notes, as_json, output)
    except (BadInputError, DescribeError, InvalidClusterError) as error:
        _refuse(str(error), as_json)
    raise typer.Exit(found.exit_code)


def _site(node: str, model: str | None, inventory: Path | None, cluster: Path | None) -> FromInventory:
    hardware = _node(node)
    shape = _shape(model) if model else None
    if inventory and cluster:
        raise BadInputError("--cluster", str(cluster), "either this or --inventory")
    if inventory or cluster:
        described = describe(inventory) if inventory else load(cluster)  # type: ignore[arg-type]  # one is there
        return from_cluster(described, hardware, shape)
    if shape is None:
        raise BadInputError("--model", None, "a config.json, a model's folder or a name; or --inventory")
    return FromInventory(hardware, Deployment(shape), ())


def _needed(node: str | None) -> str:
    if node is None:
        raise BadInputError("--node", None, "a node's file, or a name as 8xH100-SXM; or --against")
    return node


def _compare(
    file: Path, node: str | None, model: str | None, measured: Measured, as_json: bool, output: Path | None
) -> int:
    """Print predictions beside what a benchmark measured; return the exit code."""
    try:
        record = read_bench(file)
    except BenchError as error:
        raise BadInputError("--against", str(file), f"what bench serve wrote ({error})") from None
    gpu = _node(node).gpu if node else None
    found = compare(record, _shape(model) if model else None, gpu, measured)
    text = json.dumps(against_text.as_document(found), indent=1)
    if as_json:
        typer.echo(text)
    else:
        against_text.show(found, terminal.console(_WIDE))
    _write(output, text)
    return int(found.off)


def _node(given: str) -> Node:
    path = Path(given)
    return read_node(path) if path.suffix or path.exists() else named_node(given)


def _shape(given: str) -> Shape:
    path = Path(given)
    return read_config(path) if path.suffix == ".json" or path.exists() else named_model(given)


def _deliver(found: Plan, notes: tuple[str, ...], as_json: bool, output: Path | None) -> None:
    document = json.dumps(as_document(found, notes), indent=1)
    if as_json:
        typer.echo(document)
    else:
        report.show(found, terminal.console(_PLAIN_WIDTH), notes)
    _write(output, document)


def _write(output: Path | None, text: str) -> None:
    if output:
        try:
            output.write_text(text + "\n")
        except OSError as error:
            raise BadInputError("--output", str(output), f"a file that can be written ({error.strerror})") from None


def _refuse(message: str, as_json: bool) -> None:
    if as_json:
        document: dict[str, Any] = {"schema": SCHEMA, "exit_code": BAD_INPUT, "verdict": "bad input", "error": message}
        typer.echo(json.dumps(document, indent=1))
    terminal.console(_PLAIN_WIDTH, stderr=True).print(
        f"[bold red]BAD INPUT[/]: {escape(message)}", highlight=False, soft_wrap=True
    )
    raise typer.Exit(BAD_INPUT) from None
