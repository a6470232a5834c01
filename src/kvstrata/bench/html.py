"""The report as one HTML file that needs nothing else: inline style and SVG, no script, no address."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from statistics import median

from kvstrata.bench.results import COLD, MIXED, SET, WARM, WORKLOADS, Row, Run, Sample
from kvstrata.bench.sizes import GIB, show_size
from kvstrata.bench.study import BASE, DRAM, Setup
from kvstrata.bench.svg import Bar, Reference, bars
from kvstrata.bench.table import amplifications, doubts, number

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2733; --soft: #5d6b7a; --paper: #fff; --line: #d9dfe6; --bar: #6f9bd1;
  --base: #1f5fa8; --dot: #10233a; --mark: #b3261e; --note: #fff4d6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9ef; --soft: #9aa7b5; --paper: #14191f; --line: #323b46;
  --bar: #3f6ea3; --base: #8fbdf0; --dot: #dbe6f2; --mark: #ff8a80; --note: #3a3213; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
  max-width: 1460px; padding: 0 1rem; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.2rem; border-bottom: 1px solid var(--line); padding-bottom: .3rem; }
.notes li, .failures li { background: var(--note); padding: .4rem .7rem; margin: .3rem 0; list-style: none; }
.notes, .failures { padding: 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(420px, 1fr)); gap: 1.2rem; }
svg { width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
svg .title { font-weight: 600; } .bar { fill: var(--bar); } .base { fill: var(--base); } circle { fill: var(--dot); }
svg line.reference { stroke: var(--mark); stroke-dasharray: 4 3; } svg text.reference { fill: var(--mark); }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .55rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; } thead th { vertical-align: bottom; }
.wide { overflow-x: auto; } dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; }
dt { color: var(--soft); } dd { margin: 0; } .doubt { color: var(--mark); }
"""


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
    return "".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>kvstrata bench store</title><style>{_STYLE}</style></head><body>",
            "<h1>kvstrata bench store</h1>",
            _facts(run),
            _list("notes", run.notes),
            _list("failures", [f"FAILED {item.setup}, round {item.repeat}: {item.error}" for item in run.failures]),
            _axis(run, "The base against DRAM", [BASE, DRAM]),
            *(_axis(run, axis, [BASE, *(s.name for s in run.setups if s.axis == axis)]) for axis in axes),
            "<h2>Medians</h2>",
            _table(rows),
            "</body></html>\n",
        ]
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
    return "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items()) + "</dl>"


def _list(kind: str, items: Sequence[str]) -> str:
    return f'<ul class="{kind}">' + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>" if items else ""


def _axis(run: Run, title: str, names: Sequence[str]) -> str:
    charts = [drawn for chart in _CHARTS if (drawn := _draw(run, chart, title, names))]
    return f'<h2>{escape(title)}</h2><div class="charts">{"".join(charts)}</div>'


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
    lines = []
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
        doubt = f'<td class="doubt">{escape(doubts(row))}</td>'
        lines.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + doubt + "</tr>")
    head = "".join(f"<th>{escape(name)}</th>" for name in _HEADS)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
