"""The command `kvstrata bench policy`: a table on the terminal, and the same and more as JSON."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from kvstrata.bench import terminal
from kvstrata.bench.policy_study import Parameters, Result, Workload, run

SCHEMA = "kvstrata.bench.policy/1"
# Wide enough for the table's columns where no terminal says its width.
_PLAIN_WIDTH = 140
_COLUMNS = (
    "written GiB",
    "to all",
    "DWPD",
    "L2 hits Mtok",
    "L1 hits Mtok",
    "hit rate",
    "points to all",
    "reads per write",
)
_DEFAULTS = Parameters()


def policy(
    repeats: Annotated[
        int, typer.Option(min=1, help="Seeds; with fewer than 3 the medians mean little.")
    ] = _DEFAULTS.repeats,
    seed: Annotated[int, typer.Option(help="The first seed.")] = _DEFAULTS.seed,
    l1_gib: Annotated[
        list[float] | None, typer.Option(min=0.5, help="DRAM tier in GiB; may be given several times. Default: 6, 60.")
    ] = None,
    workload: Annotated[
        list[Workload] | None, typer.Option(help="Replay this one; may be given several times. Default: all.")
    ] = None,
    l2_gib: Annotated[float, typer.Option(min=0.5, help="SSD tier in GiB.")] = _DEFAULTS.l2_gib,
    chunk_tokens: Annotated[int, typer.Option(min=16, max=4096, help="Tokens of a chunk.")] = _DEFAULTS.chunk_tokens,
    kib_per_token: Annotated[
        float, typer.Option(min=1, help="KV of a token in KiB; 128 is Llama-3.1-8B.")
    ] = _DEFAULTS.kib_per_token,
    requests_per_s: Annotated[
        float, typer.Option(min=0.001, help="Requests a second that reach the drives; for DWPD.")
    ] = _DEFAULTS.requests_per_s,
    drive_gb: Annotated[
        float, typer.Option(min=1, help="GB (10^9 bytes) of all drives together; for DWPD.")
    ] = _DEFAULTS.drive_gb,
    write_amplification: Annotated[
        float, typer.Option(min=1, help="Bytes that the store writes for each byte of a chunk; for DWPD.")
    ] = _DEFAULTS.write_amplification,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write everything into this file.")] = None,
) -> None:
    """Simulate what each write policy writes to the drives, and which hits it loses. Needs no GPU, drive or model."""
    parameters = Parameters(
        seed=seed,
        repeats=repeats,
        l1_gib=tuple(l1_gib) if l1_gib else _DEFAULTS.l1_gib,
        l2_gib=l2_gib,
        chunk_tokens=chunk_tokens,
        kib_per_token=kib_per_token,
        requests_per_s=requests_per_s,
        drive_gb=drive_gb,
        write_amplification=write_amplification,
    )
    began = time.monotonic()
    results = list(run(parameters, workload or tuple(Workload)))
    console = terminal.console(_PLAIN_WIDTH)
    console.print(_table(parameters, results))
    if json_file:
        json_file.write_text(json.dumps(_document(parameters, results, time.monotonic() - began), indent=1) + "\n")
        console.print(str(json_file), highlight=False)


def _table(parameters: Parameters, results: Sequence[Result]) -> Table:
    title = (
        f"kvstrata bench policy: medians of {parameters.repeats} seeds, L2 {parameters.l2_gib:g} GiB, chunks of "
        f"{parameters.chunk_tokens} tokens ({parameters.chunk_bytes / (1 << 20):g} MiB); DWPD at "
        f"{parameters.requests_per_s:g} requests/s on {parameters.drive_gb:g} GB, write amplification "
        f"{parameters.write_amplification:g}"
    )
    table = Table(title=title, title_justify="left")
    for name in ("workload", "policy"):
        table.add_column(name, no_wrap=True)
    for name in _COLUMNS:
        table.add_column(name, justify="right")
    groups = [(result.workload, result.l1_gib) for result in results]
    first = [True, *(a != b for a, b in pairwise(groups))]
    last = [*first[1:], True]
    for result, is_first, is_last in zip(results, first, last, strict=True):
        row = result.median
        table.add_row(
            f"{result.workload}, L1 {result.l1_gib:g} GiB" if is_first else "",
            result.policy,
            f"{row.written_gib:.0f}",
            f"{row.written_to_all:.2f}",
            f"{row.drive_writes_per_day:.1f}",
            f"{row.l2_hit_tokens / 1e6:.2f}",
            f"{row.l1_hit_tokens / 1e6:.2f}",
            f"{row.hit_rate:.1%}",
            f"{100 * row.hit_rate_minus_all:+.1f}",
            "" if row.read_to_written is None else f"{row.read_to_written:.2f}",
            end_section=is_last,
        )
    return table


def _document(parameters: Parameters, results: Sequence[Result], seconds: float) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "host": {
            "name": platform.node(),
            "machine": platform.machine(),
            "kernel": platform.release(),
            "cores": len(os.sched_getaffinity(0)),
        },
        "versions": {"kvstrata": version("kvstrata"), "python": platform.python_version()},
        "parameters": asdict(parameters),
        "seconds": round(seconds, 1),
        "results": [asdict(result) for result in results],
    }
