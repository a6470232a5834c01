"""The runs at a glance: what DRAM + SSD served beside vLLM alone, a line for each load and pass."""

from __future__ import annotations

from collections.abc import Sequence

from kvstrata.bench.gpu_page.scaling import cards
from kvstrata.bench.gpu_page.targets import JUDGED, in_hbm, judged
from kvstrata.bench.serving import hbm_room
from kvstrata.bench.serving.configurations import REFERENCE
from kvstrata.bench.serving.figures import Row
from kvstrata.bench.serving.report import Report
from kvstrata.bench.serving.report_markdown import table

HEADS = (
    "run",
    "GPUs",
    "load, pass",
    "tokens/s alone",
    "with DRAM + SSD",
    "ratio",
    "P95 TTFT ms alone",
    "with DRAM + SSD",
    "ratio",
)


def lines(runs: Sequence[tuple[str, Report]]) -> list[str]:
    """Return the table; nothing where no run has both."""
    rows = [
        [
            stem if row.configuration == JUDGED else f"{stem}: {row.configuration}",
            _gpus(report),
            _load(report, row),
            *_beside(row, alone, "output_per_s", 1.0),
            *_beside(row, alone, "ttft_p95", 1e3),
        ]
        for stem, report in runs
        for row in report.rows
        if judged(row.configuration) and (alone := _alone(report, row))
    ]
    return list(table(HEADS, rows)) if rows else []


def _alone(report: Report, row: Row) -> Row | None:
    return next((each for each in report.of(row.workload, row.pass_) if each.configuration == REFERENCE), None)


def _beside(row: Row, alone: Row, figure: str, scale: float) -> list[str]:
    medians = [f"{found.median * scale:,.0f}" if (found := of.spread(figure)) else "-" for of in (alone, row)]
    ratio = row.ratios.get(figure)
    return [*medians, "-" if ratio is None else f"{ratio:.2f}x"]


def _gpus(report: Report) -> str:
    found = cards(report)
    return ", ".join(f"{found.count(name)} x {name}" for name in dict.fromkeys(found)) or "-"


def _load(report: Report, row: Row) -> str:
    """Return the workload with what was held of it and how it was spread, and the pass.

    Where HBM holds it all, there is nothing to gain.
    """
    planned = report.record.plan.get("workloads")
    entries = [entry for entry in planned if isinstance(entry, dict)] if isinstance(planned, list) else []
    where = hbm_room.moved_by(report.record.stack)
    where += ", all in HBM" if in_hbm(report, row) else ""
    held = [
        f" ({entry['conversations']} conversations, {entry.get('active') or 'all'} at once{where})"
        for entry in entries
        if entry["name"] == row.workload
    ]
    return f"{row.workload}{''.join(held)}, {row.pass_}"
