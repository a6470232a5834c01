"""The tables of `bench l2`, as headers and cells: for rich, for Markdown, and for a terminal without either."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from kvstrata.bench.l2_results import LOOKUP, STORE, Row, Run, rows, targets


@dataclass(frozen=True)
class Grid:
    """One table; all cells are text."""

    title: str
    headers: Sequence[str]
    lines: Sequence[Sequence[str]]


def grids(run: Run) -> list[Grid]:
    """Return every table that has something to say."""
    found = rows(run)
    return [grid for grid in (_moving(run, found), _lookups(found), _journeys(run), _targets(run, found)) if grid.lines]


def raw_line(run: Run) -> str:
    """Return what the drive itself did."""
    if not run.raw:
        return "raw drive: not measured"
    spans = []
    for direction in ("write", "read"):
        seen = [float(entry[f"{direction}_mb_s"]) for entry in run.raw]
        spans.append(f"{direction} {median(seen):.0f} ({min(seen):.0f}-{max(seen):.0f})")
    return f"raw O_DIRECT before each case ({run.versions.get('raw', '')}): {', '.join(spans)} MB/s"


def render(run: Run) -> str:
    """Return everything as Markdown, aligned so that it can be read as it is."""
    parts = [raw_line(run)]
    for grid in grids(run):
        widths = [max(map(len, column)) for column in zip(grid.headers, *grid.lines, strict=True)]
        lines = [
            "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"
            for cells in (grid.headers, ["-" * width for width in widths], *grid.lines)
        ]
        parts.append(f"{grid.title}\n\n" + "\n".join(lines))
    parts += [f"FAILED {f.case}, round {f.round}: {f.error}" for f in run.failures]
    parts += [f"NOTE {note}" for note in run.notes]
    return "\n\n".join(parts) + "\n"


def _moving(run: Run, found: Sequence[Row]) -> Grid:
    lines = []
    for row in found:
        if row.workload == LOOKUP:
            continue
        low_high = "" if row.mb_s_low is None or row.mb_s_high is None else f"{row.mb_s_low:.0f}-{row.mb_s_high:.0f}"
        lines.append(
            [
                row.workload,
                row.case,
                _n(row.mb_s, ".0f"),
                low_high,
                _n(row.rest_mb_s, ".0f"),
                _n(row.client_cpu_s_per_gib),
                _n(row.server_cpu_s_per_gib),
                _n(row.cpu_s_per_gib),
                _n(row.to_raw) + (f" ({_n(row.acknowledged_to_raw)})" if row.workload == STORE and row.to_raw else ""),
                _n(row.to_resp),
                _n(row.write_amplification),
                "" if row.as_named else "NOT COLD",
            ]
        )
    title = (
        f"Medians of {run.rounds} rounds, {run.chunks} chunks of {run.chunk_bytes / (1 << 20):g} MiB, "
        f"{run.batch} in a batch; store: {run.versions.get(run.store, run.store)}"
    )
    headers = ("workload", "client", "MB/s", "low-high", "MB/s at rest", "CPU s/GiB client", "store", "both")
    return Grid(title, (*headers, "to raw (acknowledged)", "to resp", "write amp", ""), lines)


def _lookups(found: Sequence[Row]) -> Grid:
    lines = [
        [
            row.case,
            _n(row.ms_per_chunk),
            _n(row.one_lookup_drive_bytes, ",.0f"),
            _n(row.one_lookup_asked_bytes, ",.0f"),
            _n(row.client_cpu_s_per_gib, ".3f"),
            _n(row.server_cpu_s_per_gib, ".3f"),
        ]
        for row in found
        if row.workload == LOOKUP
    ]
    headers = ("client", "ms per chunk", "bytes from the drive, 1 chunk", "bytes read by the store, 1 chunk")
    return Grid("Lookup, cold", (*headers, "CPU s/GiB client", "store"), lines)


def _journeys(run: Run) -> Grid:
    lines = []
    for case in run.cases:
        mine = [journey for journey in run.journeys if journey.case == case.name]
        if not mine:
            continue
        stages = [
            _n(median(journey.stages_ms[stage] for journey in mine)) if all(stage in j.stages_ms for j in mine) else ""
            for stage in ("wait", "server", "copy", "checksum")
        ]
        lookup, load = (median(getattr(journey, name) for journey in mine) for name in ("lookup_ms", "load_ms"))
        lines.append([case.name, _n(lookup), _n(load), *stages])
    headers = ("client", "lookup ms", "load ms", "wait", "server", "copy", "checksum")
    return Grid(
        "One chunk at a time, warm: ms, and what each of the connections that load it does meanwhile", headers, lines
    )


def _targets(run: Run, found: Sequence[Row]) -> Grid:
    verdict = {True: "reached", False: "NOT REACHED", None: "not measured"}
    lines = [[t.case, t.what, t.wanted, t.seen, verdict[t.reached]] for t in targets(run, found)]
    return Grid("Targets", ("client", "what", "wanted", "seen", ""), lines)


def _n(value: float | None, form: str = ".2f") -> str:
    return "" if value is None else format(value, form)
