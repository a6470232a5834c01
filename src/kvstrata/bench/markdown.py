"""The medians as one Markdown table, a line for each setup: what goes into a page or an issue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from kvstrata.bench.results import COLD, MIXED, SET, WARM, Row, Run
from kvstrata.bench.sizes import GIB, show_size
from kvstrata.bench.table import doubts, number

_HEADS = (
    "setup",
    "SET",
    "at rest",
    "GET cold",
    "GET warm",
    "mixed",
    "cold P99 ms",
    "write amp.",
    "CPU of SET",
    "of cold GET",
    "SET / raw",
    "cold / raw",
    "cold / base",
)


def render(run: Run, rows: Sequence[Row]) -> str:
    """Return what was measured where, the table, and every note."""
    setups = list(dict.fromkeys(row.setup for row in rows))
    lines = [_line(setup, {row.workload: row for row in rows if row.setup == setup}) for setup in setups]
    head = f"| {' | '.join(_HEADS)} |\n|---|{'---:|' * (len(_HEADS) - 1)}\n"
    notes = "".join(f"- {note}\n" for note in run.notes)
    return f"{_where(run)}\n\n{head}{''.join(lines)}\n{notes}"


def _where(run: Run) -> str:
    host = run.host
    raw = ""
    if run.raw:
        write, read = median(s.write_mb_s for s in run.raw), median(s.read_mb_s for s in run.raw)
        raw = f" Raw drive ({run.raw[0].tool}): write {write:.0f}, read {read:.0f} MB/s."
    machine = f"{host['cpu']}, {host['cores']} cores, {host['memory_bytes'] / GIB:.0f} GiB, Linux {host['kernel']}"
    rounds = f"medians of {run.repeats} rounds, {show_size(int(run.budget['bytes']))} of values each"
    return (
        f"{run.created[:10]}, {machine}; {host['device']}, {host['filesystem']}; {'; '.join(run.versions.values())}; "
        f"{rounds}. MB/s; CPU in seconds of the server for each GiB.{raw}"
    )


def _line(setup: str, of: Mapping[str, Row]) -> str:
    written, cold, warm, mixed = (of.get(workload) for workload in (SET, COLD, WARM, MIXED))
    cells = [
        setup.replace("|", "\\|"),
        _rate(written),
        number(written.rest_mb_s if written else None, ".0f"),
        _rate(cold),
        _rate(warm),
        _rate(mixed),
        number(cold.p99_ms if cold else None, ".1f"),
        number(written.write_amp_process if written else None),
        number(written.server_cpu_s_per_gib if written else None),
        number(cold.server_cpu_s_per_gib if cold else None),
        number(written.to_raw if written else None),
        number(cold.to_raw if cold else None),
        number(cold.to_base if cold else None),
    ]
    return f"| {' | '.join(cells)} |\n"


def _rate(row: Row | None) -> str:
    if row is None:
        return ""
    doubt = doubts(row)
    return f"{row.mb_s:.0f} ({row.mb_s_low:.0f}-{row.mb_s_high:.0f})" + (f" {doubt}" if doubt else "")
