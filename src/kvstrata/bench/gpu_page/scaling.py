"""Several engines behind a router against one of them.

Only where a run of one engine served the same model the same load, with the same settings, on the same kind of GPU: a
ratio across cards says more of the cards than of the router.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from kvstrata.bench.serving import counters
from kvstrata.bench.serving.figures import Row
from kvstrata.bench.serving.model import Json
from kvstrata.bench.serving.report import Report
from kvstrata.bench.serving.report_markdown import table

_SOURCES = ("local_cache_hit", "external_kv_transfer", "local_compute")


def lines(runs: Sequence[tuple[str, Report]]) -> list[str]:
    """Return the lines of the section; none where no run had several engines."""
    several = [(stem, report) for stem, report in runs if replicas(report) > 1]
    if not several:
        return []
    return [
        "One engine: a run of the same load with the same settings, on the same kind of GPU.",
        "",
        *_against_one(several, runs),
        "",
        *_by_engine(several),
    ]


def replicas(report: Report) -> int:
    """Return the engines of a run."""
    found = report.record.stack.get("replicas", 1)
    return found if isinstance(found, int) else 1


def cards(report: Report) -> list[str]:
    """Return the GPUs of a run: nvidia-smi's names, without memory and driver."""
    names, used = report.record.stack.get("gpu_names"), report.record.stack.get("gpus")
    found = [str(name).partition(",")[0] for name in names] if isinstance(names, list) else []
    return found[: used if isinstance(used, int) else None]


def _against_one(several: Sequence[tuple[str, Report]], runs: Sequence[tuple[str, Report]]) -> Iterator[str]:
    rows = []
    for stem, report in several:
        for row in report.rows:
            mine = row.spread("output_per_s")
            single = _of_one(report, row, runs)
            rows.append(
                [
                    f"{stem}: {row.configuration}",
                    f"{row.workload}, {row.pass_}",
                    str(replicas(report)),
                    f"{mine.median:.1f}" if mine else "-",
                    f"{single[1]:.1f} ({single[0]})" if single else "not measured",
                    f"{mine.median / single[1]:.2f}x" if mine and single and single[1] else "-",
                ]
            )
    yield from table(("run", "workload, pass", "engines", "output tokens/s", "of one engine", "ratio"), rows)


def _of_one(report: Report, row: Row, runs: Sequence[tuple[str, Report]]) -> tuple[str, float] | None:
    """Return the run of one engine that a row is compared with, and its output tokens/s; None without one."""
    for stem, other in runs:
        if replicas(other) > 1 or not _same(other, report):
            continue
        if _settings(other, row.configuration) != _settings(report, row.configuration):
            continue
        for alike in other.of(row.workload, row.pass_):
            if alike.configuration == row.configuration and (spread := alike.spread("output_per_s")):
                return stem, spread.median
    return None


def _same(one: Report, other: Report) -> bool:
    """Whether two runs served the same model the same load, on the same kind of GPU."""
    a, b = one.record, other.record
    loads = [[(w["name"], w["seed"], w["parameters"]) for w in _workloads(report)] for report in (one, other)]
    names = [m.get("name") if isinstance(m := r.stack.get("model"), dict) else m for r in (a, b)]
    return names[0] == names[1] and loads[0] == loads[1] and set(cards(one)) == set(cards(other))


def _settings(report: Report, configuration: str) -> Mapping[str, Json] | None:
    found = report.record.plan.get("configurations")
    entries = [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []
    return next((entry for entry in entries if entry.get("name") == configuration), None)


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
