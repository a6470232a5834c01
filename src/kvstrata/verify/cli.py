"""The command `kvstrata verify`."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from kvstrata.cluster import Cluster, DescribeError, InvalidClusterError, Node, TiersPolicy, describe, load
from kvstrata.verify import board, keep, report, result, runner
from kvstrata.verify.check import Layer
from kvstrata.verify.compare import TOLERANCE
from kvstrata.verify.compare import compare as differences
from kvstrata.verify.diff_cli import Tolerance, show
from kvstrata.verify.document import Document
from kvstrata.verify.keep import UnreadableError
from kvstrata.verify.outputs import Outputs, as_text, keep_run
from kvstrata.verify.result import Verdict
from kvstrata.verify.shell import Shell
from kvstrata.verify.ssh import SshShell
from kvstrata.verify.tiers.layer import TiersOptions

# Wide enough for commands to stay on a line where no terminal says its width, as under Ansible.
PLAIN_WIDTH = 140


_LAYERS = ", ".join(layer for layer in Layer if layer is not Layer.FAULTS)


class BadOptionError(ValueError):
    """An option that doesn't fit the inventory; the message names both."""


def verify(
    inventory: Annotated[
        Path | None, typer.Option("--inventory", "-i", help="Inventory of the site, as for Ansible.")
    ] = None,
    cluster_file: Annotated[
        Path | None, typer.Option("--cluster", help="What playbooks/describe.yml wrote, instead of an inventory.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the report.")] = False,
    output: Annotated[Path | None, typer.Option(help="Also write the JSON into this file.")] = None,
    tiers: Annotated[
        TiersPolicy | None,
        typer.Option(help="When to prove the tiers, which restarts one engine. Default: the inventory's choice."),
    ] = None,
    only: Annotated[str | None, typer.Option(help=f"Run these layers only, of {_LAYERS}.")] = None,
    faults: Annotated[
        bool, typer.Option("--faults", help="At the end stop a store, a cache, an engine and a node, one at a time.")
    ] = False,
    limit: Annotated[str | None, typer.Option(help="Check these nodes only: host,...")] = None,
    tier_nodes: Annotated[
        str | None, typer.Option(help="Prove the tiers on these: the node to restart, the other one.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(min=1, help="Seconds for a node's checks, and for each long wait.")
    ] = None,
    seed: Annotated[str | None, typer.Option(help="Seed of the prompt; one never used before.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Also write JUnit XML into this file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write one HTML page into this file.")] = None,
    newest: Annotated[
        int, typer.Option("--keep", min=0, help="Runs to keep in the site's state folder; 0 keeps this one nowhere.")
    ] = keep.DEFAULT,
    compare: Annotated[
        bool, typer.Option("--compare", help="Print what changed since the last kept run, after the report.")
    ] = False,
    baseline: Annotated[Path | None, typer.Option(help="Compare with this JSON of an earlier run instead.")] = None,
    tolerance: Tolerance = TOLERANCE,
    save_baseline: Annotated[
        bool, typer.Option("--save-baseline", help="Keep the throughput measured as what later runs are judged by.")
    ] = False,
) -> None:
    """Check a running site, layer by layer. Exit 0: all good, 1: a check failed, 2: could not check."""
    out, err = console_of(stderr=False), console_of(stderr=True)
    source = inventory or cluster_file
    outputs = Outputs(output, junit, html)
    try:
        err.print(f"[dim]..[/] reading {escape(str(source))}", highlight=False)
        cluster = cluster_of(inventory, cluster_file)
        options = TiersOptions(tiers or cluster.verify.tiers, seed or secrets.token_hex(8), _pair(cluster, tier_nodes))
        selection = runner.Selection(options, _layers(only), _names(cluster, "--limit", limit), faults, save_baseline)
        earlier = _earlier(cluster, compare, baseline)
    except (DescribeError, InvalidClusterError, BadOptionError, OSError) as error:
        _deliver(result.could_not_check(str(source), str(error)), as_json, outputs, err)
        err.print(f"[bold magenta]COULD NOT CHECK[/]: {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(Verdict.COULD_NOT_CHECK) from None
    shells = {node.name: _shell(node) for node in cluster.nodes}
    progress = board.ConsoleProgress(err)
    try:
        found = runner.verify(cluster, shells, selection, timeout or cluster.verify.timeout_s, progress)
    finally:
        progress.close()
        for shell in shells.values():
            shell.close()
    document = found.as_json()
    written = _deliver(document, as_json, outputs, err)
    if newest:
        keep_run(cluster.verify.state_dir, document, newest, err)
    if not as_json:
        report.show(found, out)
    if compare or baseline is not None:
        # Under --json, stdout is the document's alone.
        _tell_changes(earlier, document, tolerance, err if as_json else out)
    raise typer.Exit(found.verdict if written else Verdict.COULD_NOT_CHECK)


def cluster_of(inventory: Path | None, cluster_file: Path | None) -> Cluster:
    """Read the site from whichever of the two is given.

    Raises:
        BadOptionError: when both are given, or none.
        DescribeError, InvalidClusterError: when it cannot be read.
    """
    if inventory is not None and cluster_file is None:
        return describe(inventory)
    if cluster_file is not None and inventory is None:
        return load(cluster_file)
    raise BadOptionError("give either --inventory or --cluster")


def console_of(stderr: bool) -> Console:
    """Return a console; where no terminal says its width, one that is wide enough."""
    console = Console(stderr=stderr)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console


def _shell(node: Node) -> Shell:
    return SshShell(node.ssh)


def _pair(cluster: Cluster, tier_nodes: str | None) -> tuple[str, ...] | None:
    pair = _names(cluster, "--tier-nodes", tier_nodes)
    if pair is not None and len(pair) > 2:
        raise BadOptionError(f"--tier-nodes: {len(pair)} nodes, allowed are one or two")
    return pair


def _layers(only: str | None) -> frozenset[Layer] | None:
    """The layers of --only; faults are asked for by an option of their own."""
    if only is None:
        return None
    names = [name.strip() for name in only.split(",") if name.strip()]
    known = {layer.value: layer for layer in Layer if layer is not Layer.FAULTS}
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise BadOptionError(f"--only: {', '.join(unknown) or 'empty'}, allowed are {_LAYERS}")
    return frozenset(known[name] for name in names)


def _names(cluster: Cluster, option: str, value: str | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))
    known = [node.name for node in cluster.nodes]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise BadOptionError(f"{option}: {', '.join(unknown) or 'empty'}, the inventory has {', '.join(known)}")
    return names


def _earlier(cluster: Cluster, compare: bool, baseline: Path | None) -> tuple[Path, Document] | None:
    """The run to compare with, read before anything is verified: a wrong file costs no minutes."""
    if baseline is not None:
        try:
            return baseline, keep.load(baseline)
        except UnreadableError as error:
            raise BadOptionError(f"--baseline: {error}") from None
    return keep.last(cluster.verify.state_dir, cluster.site) if compare else None


def _tell_changes(
    earlier: tuple[Path, Document] | None, document: Document, tolerance: float, console: Console
) -> None:
    if earlier is None:
        console.print("nothing to compare with: no earlier run of this site is kept", highlight=False)
        return
    path, before = earlier
    console.print(f"[dim]..[/] compared with {escape(str(path))}", highlight=False, soft_wrap=True)
    show(differences(before, document, tolerance), console)


def _deliver(document: Document, as_json: bool, outputs: Outputs, err: Console) -> bool:
    """Print and write the document as asked; whether every file could be written."""
    if as_json:
        typer.echo(as_text(document), nl=False)
    return outputs.write(document, err)
