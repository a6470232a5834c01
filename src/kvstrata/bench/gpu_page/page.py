"""The whole page: runs at a glance, targets, then each run, the raw tier, several GPUs, units, what else there is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvstrata.bench import l2_results, l2_text, markdown, results, summary
from kvstrata.bench.gpu_page import overview, scaling, serving, targets, units
from kvstrata.bench.gpu_page.files import Source, read_sources, records
from kvstrata.bench.gpu_page.plots import FOLDER, Plot
from kvstrata.bench.gpu_page.targets import Target
from kvstrata.bench.serving import report as reports
from kvstrata.bench.serving.report import Report
from kvstrata.bench.serving.report_markdown import table

TITLE = "On GPUs"


@dataclass(frozen=True)
class Page:
    """The page's text, and its plots by name."""

    text: str
    plots: dict[str, str]

    def files(self, page: Path) -> dict[Path, str]:
        """Return all files, when the page is `page`."""
        return {page: self.text, **{page.parent / FOLDER / name: svg for name, svg in self.plots.items()}}


def make(paths: Sequence[Path], command: str) -> Page:
    """Return the page of some files.

    Args:
        paths: JSON files of the benchmarks, packed or not.
        command: what makes the page, for whoever reads it.

    Raises:
        BenchError: one of the files is none.
    """
    sources = read_sources(paths)
    made = [(source, reports.make(record)) for source, record in records(sources)]
    judged = {source.stem: targets.targets(source.stem, report) for source, report in made}
    lines = [
        f"# {TITLE}",
        "",
        f"<!-- Made by `{command}`: change the files or what makes the page, not the page. -->",
        "",
        f"Made by `{command}` from the raw samples of {len(sources)} files. Medians of the rounds; a ratio is the "
        "median of the ratios within the rounds. [bench-serve.md](bench-serve.md) says what is compared and how it is "
        "measured, [bench-l2.md](bench-l2.md) the same of the raw tier, [plan.md](plan.md) how predictions are made. "
        "While all were under way: without a run's end, when fewer conversations are left than are held at once.",
    ]
    lines += _overview(made)
    if judged:
        lines += _targets([target for found in judged.values() for target in found])
    drawn: list[Plot] = []
    for source, report in made:
        missed = [
            target for target in judged[source.stem] if target.reached is False and target.what != targets.OUTPUTS
        ]
        text, own = serving.section(source, report, missed)
        lines += ["", f"## {source.stem}: {serving.title(report)}", "", f"From `{source.name}`.", "", *text]
        drawn += own
    lines += _raw(sources)
    lines += _scaling(made)
    lines += _units(sources)
    lines += _others(sources)
    return Page("\n".join(lines) + "\n", {plot.name: plot.svg for plot in drawn})


def _overview(made: Sequence[tuple[Source, Report]]) -> Iterator[str]:
    found = overview.lines([(source.stem, report) for source, report in made])
    if found:
        yield from ("", "## At a glance", "", *found)


def _targets(found: Sequence[Target]) -> Iterator[str]:
    yield from ("", "## What was to be reached", "")
    yield from table(targets.HEADS, [target.cells() for target in found])
    missed = sum(target.reached is False for target in found)
    unknown = sum(target.reached is None for target in found)
    reached = len(found) - missed - unknown
    yield ""
    yield f"{reached} of {len(found)} reached, {missed} missed, {unknown} not measured."
    yield ""
    yield "Where HBM holds all that is under way, no gain is asked, but to be no slower."


def _raw(sources: Sequence[Source]) -> Iterator[str]:
    raw = [source for source in sources if isinstance(source.content, l2_results.Run | results.Run)]
    for source in raw:
        run = source.content
        what = "the raw tier" if isinstance(run, l2_results.Run) else "the store"
        yield from ("", f"## {source.stem}: {what}", "", f"From `{source.name}`.", "")
        if isinstance(run, l2_results.Run):
            yield f"{run.created}, {_host(run.host)}; seed {run.seed}, {_versions(run.versions)}."
            yield from ("", l2_text.render(run).rstrip())
        else:
            yield markdown.render(run, summary.summarize(run)).rstrip()
        if source.notes:
            yield from ("", f"### {source.stem}: what was tried", "", source.notes)


def _scaling(made: Sequence[tuple[Source, Report]]) -> Iterator[str]:
    several = [(source.stem, report) for source, report in made]
    lines = scaling.lines(several)
    if lines:
        yield from ("", "## Several engines", "", *lines)


def _units(sources: Sequence[Source]) -> Iterator[str]:
    for source in sources:
        if isinstance(source.content, units.Units):
            yield from ("", f"## {source.stem}: the roles' units, started on this host", "")
            yield from (f"From `{source.name}`.", "", *units.section(source.content))
            if source.notes:
                yield from ("", source.notes)


def _others(sources: Sequence[Source]) -> Iterator[str]:
    others = [source for source in sources if isinstance(source.content, dict)]
    if others:
        yield from ("", "## What else was kept", "")
        yield from table(("file", "schema", "made"), [[s.name, s.schema, _made(s.content)] for s in others])
        for source in others:
            if source.notes:
                yield from ("", f"### {source.stem}", "", source.notes)


def _made(form: dict[str, Any]) -> str:
    return str(form.get("created") or form.get("started") or form.get("started_at") or "-")


def _host(host: Any) -> str:
    return f"{host.get('cpu', 'unknown')}, {host.get('cores', '?')} cores, {host.get('device', 'unknown drive')}"


def _versions(versions: Any) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
