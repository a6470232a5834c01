"""The report of `bench serve` as Markdown: what goes into a page or an issue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kvstrata.bench.serving import gate, report_cells
from kvstrata.bench.serving.report import Report


def render(report: Report) -> str:
    """Return a table for each workload and pass, then the profiles, the outputs and every note."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    record = report.record
    gpus = record.stack.get("gpu_names")
    where = ", ".join(map(str, gpus)) if isinstance(gpus, list) and gpus else "no GPU"
    yield (
        f"{record.created[:10]}, {where}, {record.host.get('cores', '?')} cores; {record.plan['rounds']} rounds, "
        f"seed {record.plan['seed']}; ratios against `{report.reference}` within each round."
    )
    for workload, pass_ in report.groups:
        yield f"\n{workload}, {pass_}:\n"
        yield from table(report_cells.HEADS, [report_cells.cells(report, row) for row in report.of(workload, pass_)])
    if report.gates:
        yield "\nBreak-even:\n"
        yield from table(gate.HEADS, [each.cells() for each in report.gates])
    if report.profiles:
        stages = list(dict.fromkeys(stage for each in report.profiles for stage in each.seconds))
        yield "\nms of work for each loaded chunk:\n"
        yield from table(
            ("configuration", "tier", *stages, "all"),
            [
                (
                    each.configuration,
                    each.tier,
                    *(f"{each.seconds[stage] * 1e3:.2f}" if stage in each.seconds else "-" for stage in stages),
                    f"{each.total_s * 1e3:.2f}",
                )
                for each in report.profiles
            ],
        )
    if record.verdicts:
        yield "\nOutputs against the uncached run:\n"
        yield from (f"- {verdict.configuration}: {verdict.text()}" for verdict in record.verdicts)
    if notes := [
        *report.remarks,
        *(f"NOT RUN {entry.configuration}: {entry.reason}" for entry in record.not_run),
        *(f"FAILED {entry.configuration}, round {entry.round}: {entry.error}" for entry in record.failures),
    ]:
        yield ""
        yield from (f"- {note}" for note in notes)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table, the first column to the left."""
    yield _line(heads)
    yield "|---|" + "---:|" * (len(heads) - 1)
    for row in rows:
        yield _line(row)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
