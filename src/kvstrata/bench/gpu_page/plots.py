"""The plots of a run of bench serve, each an SVG file with its text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from kvstrata.bench.serving.figures import Figures, Row
from kvstrata.bench.serving.report import Report
from kvstrata.page.image import standalone
from kvstrata.page.stacked import Stack, stacked
from kvstrata.page.svg import Bar, bars

FOLDER = "plots"
_SOURCES = {"HBM": "hbm", "DRAM": "l1", "SSD": "l2", "computed": "computed"}


@dataclass(frozen=True)
class Plot:
    """One file. `text` says in words what it shows."""

    name: str
    title: str
    text: str
    svg: str

    def markdown(self) -> str:
        """Return the line that shows it on a page of docs/."""
        alt = f"{self.title}: {self.text}".replace("[", "(").replace("]", ")")
        return f"![{alt}]({FOLDER}/{self.name})"


def of_workload(stem: str, report: Report, workload: str) -> list[Plot]:
    """Return the plots of one workload: tokens/s, P95 TTFT, and where prompt tokens came from; passes side by side."""
    rows = [row for row in report.rows if row.workload == workload]
    start = f"{stem}-{workload}"
    return [
        *_bars(f"{start}-output", f"{workload}: output tokens/s", rows, report, lambda each: each.output_per_s, ".0f"),
        *_bars(f"{start}-ttft-p95", f"{workload}: TTFT P95, ms", rows, report, _p95_ms, ".0f"),
        *_sources(f"{start}-sources", f"{workload}: % of prompt tokens by source", rows),
    ]


def of_stages(stem: str, report: Report) -> list[Plot]:
    """Return the plot of where the time of a loaded chunk goes, if any chunk was loaded."""
    stacks = [
        Stack(f"{each.configuration}, {each.tier}", {stage: s * 1e3 for stage, s in each.seconds.items()})
        for each in report.profiles
    ]
    title = "ms of work for each loaded chunk, by stage"
    if not stacks:
        return []
    return [_plot(f"{stem}-stages", title, _told(stacks, ".2f"), stacked(title, stacks, ".2f"))]


def _p95_ms(each: Figures) -> float | None:
    return None if each.ttft_p95 is None else each.ttft_p95 * 1e3


def _bars(
    name: str, title: str, rows: Sequence[Row], report: Report, read: Callable[[Figures], float | None], form: str
) -> Iterator[Plot]:
    found = [(row, spread) for row in rows if (spread := row.spread_of(read)) is not None]
    drawn = [
        Bar(_label(row), spread.median, spread.values, base=row.configuration == report.reference)
        for row, spread in found
    ]
    if drawn:
        text = ", ".join(f"{bar.label} {bar.median:{form}}" for bar in drawn)
        yield _plot(name, title, text, bars(title, drawn, form=form, wide=True))


def _sources(name: str, title: str, rows: Sequence[Row]) -> Iterator[Plot]:
    stacks = []
    for row in rows:
        spreads = {source: row.spread(f"{field}_tokens") for source, field in _SOURCES.items()}
        total = sum(each.median for each in spreads.values() if each)
        if total:
            parts = {source: each.median / total * 100 for source, each in spreads.items() if each}
            stacks.append(Stack(_label(row), parts))
    if stacks:
        yield _plot(name, title, _told(stacks, ".0f"), stacked(title, stacks, ".0f"))


def _told(stacks: Sequence[Stack], form: str) -> str:
    return "; ".join(
        f"{stack.label}: " + ", ".join(f"{name} {value:{form}}" for name, value in stack.parts.items())
        for stack in stacks
    )


def _label(row: Row) -> str:
    return f"{row.configuration}, {row.pass_}"


def _plot(name: str, title: str, text: str, chart: str) -> Plot:
    # Names of variants have blanks and equals signs.
    file = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name)
    return Plot(f"{file}.svg", title, text, standalone(chart, text))
