"""The report of `kvstrata bench store` as one HTML file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from kvstrata.bench.results import COLD, MIXED, SET, WARM, WORKLOADS, Row, Run, Sample
from kvstrata.bench.sizes import GIB, show_size
from kvstrata.bench.study import BASE, DRAM, Setup
from kvstrata.bench.table import amplifications, doubts, number
from kvstrata.page import html
from kvstrata.page.html import Cell
from kvstrata.page.svg import Bar, Reference, bars


@dataclass(frozen=True)
class _Chart:
    title: str
    workload: str
    value: Callable[[Sample], float | None]
    raw: Callable[[Run], float] | None = None
    form: str = ".0f"


def _raw_write(run: Run) -> float:
    return median(sample.write_mb_s for sample in run.raw)


def _raw_read(run: Run) -> float:
    return median(sample.read_mb_s for sample in run.raw)


_CHARTS = (
    _Chart("SET until at rest, MB/s", SET, lambda sample: sample.rest_mb_s, _raw_write),
    _Chart("GET cold, MB/s", COLD, lambda sample: sample.mb_s, _raw_read),
    _Chart("GET warm, MB/s", WARM, lambda sample: sample.mb_s),
    _Chart("SET as acknowledged, MB/s", SET, lambda sample: sample.mb_s),
    _Chart("70 % GET, 30 % SET, MB/s", MIXED, lambda sample: sample.mb_s),
    _Chart("GET cold, P99 ms", COLD, lambda sample: sample.p99_ms, form=".1f"),
    _Chart("Write amplification, bytes of the process", SET, lambda sample: sample.write_amp_process, form=".2f"),
    _Chart("Server CPU of SET, s/GiB", SET, lambda sample: sample.server_cpu_s_per_gib, form=".2f"),
    _Chart("Server CPU of GET warm, s/GiB", WARM, lambda sample: sample.server_cpu_s_per_gib, form=".2f"),
)


def render(run: Run, rows: Sequence[Row]) -> str:
    """Return the page."""
    axes = list(dict.fromkeys(setup.axis for setup in run.setups if setup.axis not in (BASE, DRAM)))
    return html.page(
        "kvstrata bench store",
        [
            _facts(run),
            html.notes("notes", run.notes),
            html.notes(
                "failures", [f"FAILED {item.setup}, round {item.repeat}: {item.error}" for item in run.failures]
            ),
            _axis(run, "The base against DRAM", [BASE, DRAM]),
            *(_axis(run, axis, [BASE, *(s.name for s in run.setups if s.axis == axis)]) for axis in axes),
            html.section("Medians", _table(rows)),
        ],
    )


def _facts(run: Run) -> str:
    host, base = run.host, run.setups[0]
    raw = ""
    if run.raw:
        sample = run.raw[0]
        raw = (
            f"write {_raw_write(run):.0f}, read {_raw_read(run):.0f} MB/s; sequential O_DIRECT, "
            f"{show_size(sample.block_bytes)} blocks, depth {sample.depth}, by {sample.tool}"
        )
    facts = {
        "Run": f"{run.created}, {run.duration_s:.0f} s, {run.repeats} rounds, seed {run.seed}"
        + ("" if run.complete else ", NOT COMPLETE"),
        "Machine": f"{host['cpu']}, {host['cores']} cores, {host['memory_bytes'] / GIB:.0f} GiB, "
        f"Linux {host['kernel']}, load {host['load_before']:.2f} before the run",
        "Drive": f"{host['device']} ({host['device_model']}), {host['filesystem']}",
        "Raw drive": raw,
        "Versions": ", ".join(run.versions.values()),
        "Each workload": f"{show_size(int(run.budget['bytes']))} of values, {run.budget['seconds']:.1f} s at most",
        "Base": f"{show_size(base.value_bytes)} values as {base.layout}, {base.connections} connections, pipeline "
        f"{base.pipeline}, {base.instances} instance(s), {base.allocator} allocator; "
        + ", ".join(f"{name.removeprefix('rocksdb.')} {value}" for name, value in base.directives.items()),
    }
    return html.facts(facts)


def _axis(run: Run, title: str, names: Sequence[str]) -> str:
    charts = [drawn for chart in _CHARTS if (drawn := _draw(run, chart, title, names))]
    return html.section(title, html.charts(charts))


def _base_label(base: Setup, axis: str) -> str:
    """Return the base's label, with its own value on an axis of the load."""
    value = show_size(base.value_bytes) if axis == "value" else getattr(base, axis, None)
    return f"{BASE} ({value})" if value is not None else BASE


def _draw(run: Run, chart: _Chart, axis: str, names: Sequence[str]) -> str:
    rows = []
    for name in names:
        measured = [value for s in run.samples_of(name, chart.workload) if (value := chart.value(s)) is not None]
        if measured:
            label = _base_label(run.setups[0], axis) if name == BASE else name.partition(": ")[2] or name
            rows.append(Bar(label, median(measured), measured, base=name == BASE))
    if not rows:
        return ""
    reference = Reference("raw drive", chart.raw(run)) if chart.raw and run.raw else None
    return bars(chart.title, rows, reference, chart.form)


_HEADS = (
    "workload",
    "setup",
    "MB/s",
    "low-high",
    "at rest",
    "P50 ms",
    "P95 ms",
    "P99 ms",
    "amplification: server",
    "process",
    "device",
    "CPU s/GiB: client",
    "server",
    "others' cores",
    "to base",
    "to raw",
    "to DRAM",
    "",
)


def _table(rows: Sequence[Row]) -> str:
    lines: list[tuple[str | Cell, ...]] = []
    for row in sorted(rows, key=lambda row: WORKLOADS.index(row.workload)):
        cells = (
            row.workload,
            row.setup,
            number(row.mb_s, ".0f"),
            f"{row.mb_s_low:.0f}-{row.mb_s_high:.0f}",
            number(row.rest_mb_s, ".0f"),
            *(number(value) for value in (row.p50_ms, row.p95_ms, row.p99_ms)),
            *(number(value) for value in amplifications(row)),
            number(row.client_cpu_s_per_gib),
            number(row.server_cpu_s_per_gib),
            number(row.foreign_cores),
            *(number(value) for value in (row.to_base, row.to_raw, row.to_dram)),
        )
        lines.append((*cells, Cell(doubts(row), "doubt")))
    return html.table(_HEADS, lines)
