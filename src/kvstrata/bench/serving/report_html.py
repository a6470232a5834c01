"""The report of `bench serve` as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from kvstrata.bench.serving import gate, report_cells
from kvstrata.bench.serving.figures import Figures, Row
from kvstrata.bench.serving.profile import SERIALIZATION, Profile
from kvstrata.bench.serving.report import Report
from kvstrata.page import html
from kvstrata.page.stacked import Stack, stacked
from kvstrata.page.svg import Bar, bars


@dataclass(frozen=True)
class _Chart:
    title: str
    value: Callable[[Figures], float | None]
    form: str = ".1f"


def _milli(value: float | None) -> float | None:
    return None if value is None else value * 1e3


_CHARTS = (
    _Chart("output tokens/s", lambda each: each.output_per_s),
    _Chart("time to first token, P50, ms", lambda each: _milli(each.ttft_p50), ".0f"),
    _Chart("time to first token, P95, ms", lambda each: _milli(each.ttft_p95), ".0f"),
    _Chart("time between tokens, P95, ms", lambda each: _milli(each.itl_p95)),
)


def render(report: Report) -> str:
    """Return the page."""
    record = report.record
    failures = [f"FAILED {entry.configuration}, round {entry.round}: {entry.error}" for entry in record.failures]
    failures += [
        f"OUTPUTS DIFFER {verdict.configuration}: {verdict.text()}"
        for verdict in record.verdicts
        if verdict.ok is False
    ]
    missing = [f"NOT RUN {entry.configuration}: {entry.reason}" for entry in record.not_run]
    return html.page(
        "kvstrata bench serve",
        [
            html.facts(dict(_facts(report))),
            html.notes("failures", failures),
            html.notes("notes", [*report.remarks, *missing]),
            *(_group(report, workload, pass_) for workload, pass_ in report.groups),
            *_sweeps(report),
            _gates(report),
            _profiles(report.profiles),
            _correctness(report),
            _starts(report),
            _phases(report),
        ],
    )


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    record, plan = report.record, report.record.plan
    host, stack = record.host, record.stack
    yield "Run", f"{record.created}, {record.duration_s / 60:.1f} minutes, {plan['rounds']} rounds, seed {plan['seed']}"
    if "cpu" in host:
        yield "Host", f"{host['cpu']}, {host['cores']} cores, Linux {host.get('kernel', 'unknown')}"
    gpus = stack.get("gpu_names")
    yield "GPUs", ", ".join(map(str, gpus)) if isinstance(gpus, list) and gpus else "none"
    model = stack.get("model")
    yield "Model", str(model.get("name", model)) if isinstance(model, dict) else str(model or "unknown")
    versions = stack.get("versions")
    if isinstance(versions, dict):
        yield "Versions", ", ".join(f"{name} {version}" for name, version in versions.items())
    yield "Reference", report.reference
    if report.prices is not None:
        yield "Price", f"{report.prices.gpu_hour:g} {report.prices.currency} for a GPU and an hour"


def _group(report: Report, workload: str, pass_: str) -> str:
    rows = report.of(workload, pass_)
    drawn = [_chart(chart, rows, report.reference) for chart in _CHARTS]
    tokens = [_tokens(row) for row in rows]
    return html.section(
        f"{workload}, {pass_}",
        html.charts([*drawn, stacked("prompt tokens by where they came from, % of all", tokens)]),
        html.table(report_cells.HEADS, [report_cells.cells(report, row) for row in rows]),
    )


def _chart(chart: _Chart, rows: Sequence[Row], reference: str) -> str:
    found = [(row, row.spread_of(chart.value)) for row in rows]
    return bars(
        chart.title,
        [
            Bar(row.configuration, of.median, of.values, base=row.configuration == reference)
            for row, of in found
            if of is not None
        ],
        form=chart.form,
    )


def _tokens(row: Row) -> Stack:
    found = {
        name: row.spread(f"{field}_tokens")
        for name, field in (("HBM", "hbm"), ("DRAM", "l1"), ("SSD", "l2"), ("computed", "computed"))
    }
    total = sum(each.median for each in found.values() if each) or 1
    return Stack(row.configuration, {name: each.median / total * 100 for name, each in found.items() if each})


def _sweeps(report: Report) -> Iterator[str]:
    """A curve for each axis that was swept: the variants of a configuration are called `BASE AXIS=VALUE`."""
    axes: dict[tuple[str, str], list[tuple[str, Row]]] = {}
    for row in report.rows:
        base, _, change = row.configuration.partition(" ")
        axis, _, value = change.partition("=")
        if value and " " not in value:
            axes.setdefault((base, axis), []).append((value, row))
    for (base, axis), found in axes.items():
        groups = dict.fromkeys((row.workload, row.pass_) for _, row in found)
        drawn = []
        for workload, pass_ in groups:
            own = [row for row in report.of(workload, pass_) if row.configuration == base]
            rows = [(f"{axis}={value}", row) for value, row in found if (row.workload, row.pass_) == (workload, pass_)]
            for chart in _CHARTS[:3]:
                spreads = [(label, row.spread_of(chart.value), False) for label, row in rows]
                spreads += [(f"{base} as it is", row.spread_of(chart.value), True) for row in own]
                told = [Bar(label, each.median, each.values, base=mark) for label, each, mark in spreads if each]
                drawn.append(bars(f"{workload}, {pass_}: {chart.title}", told, form=chart.form))
        yield html.section(f"Sweep of {axis} on {base}", html.charts(drawn))


def _gates(report: Report) -> str:
    if not report.gates:
        return ""
    return html.section(
        "Break-even: what was found, and answered as a miss because computing it is quicker",
        html.table(gate.HEADS, [each.cells() for each in report.gates]),
    )


def _profiles(profiles: Sequence[Profile]) -> str:
    if not profiles:
        return ""
    stacks = [
        Stack(
            f"{each.configuration}, {each.tier}",
            {stage: seconds * 1e3 for stage, seconds in each.seconds.items()},
        )
        for each in profiles
    ]
    shares = [
        f"{each.configuration}, {each.tier}: {' and '.join(SERIALIZATION)} take {each.serialization_share:.0%} "
        f"of {each.total_s * 1e3:.2f} ms of work for a chunk ({each.chunks} chunks were loaded)"
        for each in profiles
        if each.serialization_share is not None
    ]
    return html.section(
        "Where the time of a loaded chunk goes",
        html.charts([stacked("ms of work for each chunk, by stage", stacks, form=".2f")]),
        html.notes("notes", shares),
    )


def _correctness(report: Report) -> str:
    rows = [
        (
            verdict.configuration,
            {True: "identical", False: "DIFFERENT", None: "NOT PROVEN"}[verdict.ok],
            verdict.text(),
        )
        for verdict in report.record.verdicts
    ]
    return (
        html.section("Outputs against the uncached run", html.table(("configuration", "", "seen"), rows))
        if rows
        else ""
    )


def _starts(report: Report) -> str:
    rows = [(start.configuration, str(start.round), f"{start.seconds:.0f}") for start in report.record.starts]
    return html.folded("starts, in no measurement", html.table(("configuration", "round", "s"), rows))


def _phases(report: Report) -> str:
    rows = [
        (
            phase.workload,
            phase.pass_,
            phase.configuration,
            str(phase.round),
            phase.started_at,
            f"{phase.duration_s:.1f}",
            str(len(phase.samples)),
            "; ".join([*phase.notes, *([phase.error] if phase.error else [])]),
        )
        for phase in report.record.phases
    ]
    heads = ("workload", "pass", "configuration", "round", "started", "s", "requests", "notes")
    return html.section("Every phase", html.table(heads, rows))
