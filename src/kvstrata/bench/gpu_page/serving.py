"""The section of a page for one run of bench serve."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kvstrata.bench.gpu_page import plots
from kvstrata.bench.gpu_page.files import Source
from kvstrata.bench.gpu_page.plots import Plot
from kvstrata.bench.gpu_page.targets import Target
from kvstrata.bench.serving import gate, hbm_room, report_cells
from kvstrata.bench.serving.figures import Row
from kvstrata.bench.serving.report import Report
from kvstrata.bench.serving.report_markdown import table
from kvstrata.bench.sizes import GIB
from kvstrata.plan import against_text
from kvstrata.plan.against import compare
from kvstrata.plan.reading import BadInputError

HEADS = (
    "configuration",
    "pass",
    "output tokens/s",
    "to reference",
    "TTFT ms P50/P95/P99",
    "P95 TTFT to reference",
    "while all were under way: tokens/s",
    "while all were under way: P95 TTFT ms",
    "ITL ms P50/P95/P99",
    "prompt tokens HBM/DRAM/SSD/computed",
    "failed",
    "rounds",
)
_FIELDS = ("l1_gib", "hbm_gib", "stores", "chunk_tokens", "piece_bytes", "connections", "min_load_gbps")


def section(source: Source, report: Report, missed: Sequence[Target]) -> tuple[list[str], list[Plot]]:
    """Return the lines under the heading of a run, and its plots.

    Args:
        source: the file.
        report: what is said of it.
        missed: the targets that it does not reach, which the decomposition is to explain.
    """
    drawn = {workload: plots.of_workload(source.stem, report, workload) for workload in _workloads(report)}
    stages = plots.of_stages(source.stem, report)
    lines = [*_facts(report), "", *_configurations(report), *_remarks(report)]
    for workload, of_workload in drawn.items():
        lines += ["", f"### {source.stem}: {workload}", ""]
        rows = [row for row in report.rows if row.workload == workload]
        lines += table(HEADS, [_cells(report, row) for row in rows])
        for plot in of_workload:
            lines += ["", plot.markdown()]
    lines += _gates(source, report)
    lines += _stages(source, report, stages, missed)
    lines += _predictions(source, report)
    if source.notes:
        lines += ["", f"### {source.stem}: what was tried", "", source.notes]
    return lines, [*(plot for of_workload in drawn.values() for plot in of_workload), *stages]


def title(report: Report) -> str:
    """Return what was served on what."""
    stack = report.record.stack
    model = stack.get("model")
    told = model if isinstance(model, Mapping) else {"name": model}
    kept = told.get("kv_dtype", "auto")
    kv = "" if kept == "auto" else f" with KV in {kept}"
    replicas = stack.get("replicas", 1)
    engines = f", {replicas} engines" if isinstance(replicas, int) and replicas > 1 else ""
    return f"{told.get('name')}{kv} on {_gpus(report)}{engines}{hbm_room.moved_by(stack)}"


def _gpus(report: Report) -> str:
    names = report.record.stack.get("gpu_names")
    found = [str(name) for name in names] if isinstance(names, list) else []
    used = report.record.stack.get("gpus")
    found = found[: used if isinstance(used, int) else None]
    kinds = {name: found.count(name) for name in found}
    return ", ".join(f"{count} x {name}" if count > 1 else name for name, count in kinds.items()) or "no GPU"


def _workloads(report: Report) -> list[str]:
    return list(dict.fromkeys(row.workload for row in report.rows))


def _facts(report: Report) -> Iterator[str]:
    record = report.record
    host, stack, plan = record.host, record.stack, record.plan
    yield "| | |"
    yield "|---|---|"
    yield _fact("run", f"{record.created}, {record.duration_s / 60:.1f} minutes, {plan.get('rounds')} rounds")
    yield _fact("seed", plan.get("seed"))
    cores = host.get("cores")
    memory = host.get("memory_bytes")
    size = f", {float(memory) / GIB:.0f} GiB" if isinstance(memory, int | float) else ""
    yield _fact("host", f"{host.get('cpu', 'unknown')}, {cores} cores{size}, Linux {host.get('kernel', 'unknown')}")
    yield _fact("drive", f"{host.get('device', 'unknown')}, {host.get('filesystem', 'unknown')}")
    yield _fact("GPUs", _gpus(report))
    versions = stack.get("versions")
    if isinstance(versions, Mapping):
        yield _fact("versions", ", ".join(f"{name} {version}" for name, version in versions.items()))
    model: Any = stack.get("model")
    if isinstance(model, Mapping):
        # A site as it is deployed tells less than a stack of our own.
        named = [name for name in ("dtype", "kv_dtype", "load_format", "revision") if name in model]
        told = ", ".join(f"{name.replace('_', ' ')} {model[name]}" for name in named)
        yield _fact("model", f"{model.get('name', 'unknown')}: {told}")
    for workload in _entries(plan.get("workloads")):
        live = workload["working_set"]["live"]
        note = workload["parameters"].get("note", "as it is defined")
        active = workload["active"]
        held = "open loop" if active is None else f"{active} at once"
        yield _fact(
            f"workload {workload['name']}",
            f"{workload['conversations']} conversations, {held}, {workload['requests']} requests, working set "
            f"{live:,} tokens; {note}",
        )


def _configurations(report: Report) -> Iterator[str]:
    rows = [
        [entry["name"], *(_value(entry.get(name)) for name in _FIELDS)]
        for entry in _entries(report.record.plan.get("configurations"))
    ]
    yield from table(("configuration", *_FIELDS), rows)


def _value(value: Any) -> str:
    return "-" if value in (None, "none", 0) else f"{value:,}" if isinstance(value, int) else str(value)


def _remarks(report: Report) -> Iterator[str]:
    record = report.record
    told = [
        *report.remarks,
        *(f"NOT RUN {entry.configuration}: {entry.reason}" for entry in record.not_run),
        *(f"FAILED {entry.configuration}, round {entry.round}: {entry.error}" for entry in record.failures),
    ]
    if told:
        yield ""
        yield from (f"- {_plain(text)}" for text in told)


def _cells(report: Report, row: Row) -> list[str]:
    served, tail = row.ratios.get("output_per_s"), row.ratios.get("ttft_p95")
    own = row.configuration == report.reference
    return [
        row.configuration,
        row.pass_,
        report_cells.spread(row.spread("output_per_s"), ".1f"),
        "reference" if own else "-" if served is None else f"{served:.2f}x",
        report_cells.percentiles(row, "ttft", 1e3, ".0f"),
        "reference" if own else "-" if tail is None else f"{tail:.2f}x",
        report_cells.compared(row, "full_output_per_s", 1.0, ".1f"),
        report_cells.compared(row, "full_ttft_p95", 1e3, ".0f"),
        report_cells.percentiles(row, "itl", 1e3, ".1f"),
        report_cells.shares(row),
        str(sum(each.failed for each in row.by_round.values())),
        str(row.rounds),
    ]


def _gates(source: Source, report: Report) -> Iterator[str]:
    if report.gates:
        yield from ("", f"### {source.stem}: break-even", "")
        yield from table(gate.HEADS, [each.cells() for each in report.gates])


def _stages(source: Source, report: Report, drawn: Sequence[Plot], missed: Sequence[Target]) -> Iterator[str]:
    if not report.profiles and not missed:
        return
    yield from ("", f"### {source.stem}: where the time of a loaded chunk goes", "")
    for target in missed:
        yield f"- NO: {target.configuration}: {target.what}: {target.seen}, wanted {target.wanted}"
    if missed:
        yield ""
    if not report.profiles:
        yield "No chunk was loaded from a tier whose stages are counted: nothing tells where its time goes."
        return
    stages = list(dict.fromkeys(stage for each in report.profiles for stage in each.seconds))
    yield from table(
        ("configuration", "tier", "chunks", *stages, "all, ms"),
        [
            [
                each.configuration,
                each.tier,
                str(each.chunks),
                *(f"{each.seconds[stage] * 1e3:.2f}" if stage in each.seconds else "-" for stage in stages),
                f"{each.total_s * 1e3:.2f}",
            ]
            for each in report.profiles
        ],
    )
    for plot in drawn:
        yield from ("", plot.markdown())


def _predictions(source: Source, report: Report) -> Iterator[str]:
    yield from ("", f"### {source.stem}: what `kvstrata plan` predicts", "")
    try:
        yield from against_text.markdown(compare(report.record))
    except BadInputError as error:
        yield f"Not compared: {_plain(str(error))}."


def _fact(name: str, value: Any) -> str:
    return f"| {name} | {_plain(str(value))} |"


def _plain(text: str) -> str:
    """Return text of a file as it may stand in Markdown, in a table too."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _entries(given: Any) -> list[dict[str, Any]]:
    return [entry for entry in given if isinstance(entry, dict)] if isinstance(given, list) else []
