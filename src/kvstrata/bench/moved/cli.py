"""`kvstrata bench moved`: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def moved(
    inventory: Annotated[Path | None, typer.Option("--inventory", "-i", help="Inventory of the site.")] = None,
    cluster_file: Annotated[
        Path | None, typer.Option("--cluster", help="What playbooks/describe.yml wrote, instead of an inventory.")
    ] = None,
    nodes: Annotated[
        str | None, typer.Option(help="The two to use: node,node. Default: the first two that fit.")
    ] = None,
    conversations: Annotated[int, typer.Option(min=1, help="Of each kind, in each repeat.")] = 3,
    repeats: Annotated[int, typer.Option(min=1, help="Each node is home to the conversations in turn.")] = 2,
    prompt_tokens: Annotated[int, typer.Option(min=16, help="Of a conversation's first turn.")] = 2048,
    output_tokens: Annotated[int, typer.Option(min=1, help="Of each answer.")] = 8,
    load: Annotated[
        int,
        typer.Option(min=0, help="Long answers that keep a conversation's node busy, so that the router may move it."),
    ] = 6,
    requests: Annotated[int, typer.Option(min=0, help="Requests of a load over one node and over two; 0: none.")] = 0,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests of that load at a time.")] = 8,
    load_prompt_tokens: Annotated[int, typer.Option(min=16, help="Tokens of each prompt of that load.")] = 256,
    load_output_tokens: Annotated[int, typer.Option(min=1, help="Tokens of each answer of that load.")] = 32,
    seed: Annotated[str | None, typer.Option(help="Seed of the prompts; one never used before.")] = None,
    output: Annotated[Path | None, typer.Option(help="Also write JSON into this file.")] = None,
    as_markdown: Annotated[
        Path | None, typer.Option("--markdown", help="Also write the tables into this file.")
    ] = None,
) -> None:
    """Time a conversation's next turn where it was, where it was moved, and where no cache has it.

    Takes replicas out of service and puts them back: for a site without other users. Exit 0: done, 1: it could not be
    measured, 2: could not start.
    """
    # Here and not above: the other benchmarks run on hosts that have none of what the verifier needs.
    from kvstrata.bench.moved import command, run, throughput

    command.measure(
        command.Options(
            inventory,
            cluster_file,
            nodes,
            run.Settings(conversations, repeats, prompt_tokens, output_tokens, load),
            throughput.LoadSettings(requests, concurrency, load_prompt_tokens, load_output_tokens, repeats),
            seed,
            output,
            as_markdown,
        )
    )
