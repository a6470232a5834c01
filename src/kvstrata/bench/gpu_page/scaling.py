"""Several engines behind a router against one of them, where runs of both served the same model and load."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kvstrata.bench.serving import counters
from kvstrata.bench.serving.model import Json
from kvstrata.bench.serving.report import Report
from kvstrata.bench.serving.report_markdown import table

_SOURCES = ("local_cache_hit", "external_kv_transfer", "local_compute")


def lines(runs: Sequence[tuple[str, Report]]) -> list[str]:
    """Return the lines of the section; none where no run had several engines."""
    several = [(stem, report) for stem, report in runs if replicas(report) > 1]
    if not several:
        return []
    return [*_against_one(several, runs), "", *_by_engine(several)]


def replicas(report: Report) -> int:
    """Return the engines of a run."""
    found = report.record.stack.get("replicas", 1)
    return found if isinstance(found, int) else 1


def _against_one(several: Sequence[tuple[str, Report]], runs: Sequence[tuple[str, Report]]) -> Iterator[str]:
    rows = []
    for stem, report in several:
        single = next((each for each in runs if replicas(each[1]) == 1 and _same(each[1], report)), None)
        for row in report.rows:
            mine = row.spread("output_per_s")
            one = None
            if single:
                alike = [r for r in single[1].of(row.workload, row.pass_) if r.configuration == row.configuration]
                one = alike[0].spread("output_per_s") if alike else None
            rows.append(
                [
                    f"{stem}: {row.configuration}",
                    f"{row.workload}, {row.pass_}",
                    str(replicas(report)),
                    f"{mine.median:.1f}" if mine else "-",
                    f"{one.median:.1f} ({single[0]})" if one and single else "not measured",
                    f"{mine.median / one.median:.2f}x" if mine and one and one.median else "-",
                ]
            )
    yield from table(("run", "workload, pass", "engines", "output tokens/s", "of one engine", "ratio"), rows)


def _same(one: Report, other: Report) -> bool:
    """Whether two runs served the same model the same load."""
    a, b = one.record, other.record
    loads = [[(w["name"], w["seed"], w["parameters"]) for w in _workloads(report)] for report in (one, other)]
    names = [m.get("name") if isinstance(m := r.stack.get("model"), dict) else m for r in (a, b)]
    return names[0] == names[1] and loads[0] == loads[1]


def _workloads(report: Report) -> list[dict[str, Json]]:
    found = report.record.plan.get("workloads")
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _by_engine(several: Sequence[tuple[str, Report]]) -> Iterator[str]:
    """Where each engine's prompt tokens came from: what `external` has came through the tiers that engines share."""
    rows = []
    for stem, report in several:
        for phase in report.record.phases:
            for engine in sorted(source for source in phase.after if source.startswith("vllm:")):
                counted = [
                    counters.difference(
                        phase.before, phase.after, engine, f"vllm:prompt_tokens_by_source_total{{source={source}}}"
                    )
                    for source in _SOURCES
                ]
                rows.append(
                    [
                        f"{stem}: {phase.configuration}, round {phase.round}",
                        f"{phase.workload}, {phase.pass_}",
                        engine,
                        *(f"{count:,.0f}" for count in counted),
                    ]
                )
    yield "Prompt tokens of each engine, by where they came from:"
    yield ""
    yield from table(("run", "workload, pass", "engine", "own HBM", "shared tiers", "computed"), rows)
