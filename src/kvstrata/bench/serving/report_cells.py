"""The columns that every form of the report has: what they are called, and their text for a row."""

from __future__ import annotations

from collections.abc import Sequence

from kvstrata.bench.serving.figures import Row, Spread
from kvstrata.bench.serving.report import Report

HEADS: Sequence[str] = (
    "configuration",
    "output tokens/s",
    "against reference",
    "while all were under way: tokens/s",
    "requests/s",
    "TTFT ms P50/P95/P99",
    "ITL ms P50/P95/P99",
    "E2E s P50/P95/P99",
    "prompt tokens HBM/DRAM/SSD/computed",
    "GPU s",
    "per 10^6 tokens",
    "failed",
    "rounds",
)


def cells(report: Report, row: Row) -> list[str]:
    """Return the texts of a row, under HEADS."""
    ratio = row.ratios.get("output_per_s")
    return [
        row.configuration,
        spread(row.spread("output_per_s"), ".1f"),
        "reference" if row.configuration == report.reference else "" if ratio is None else f"{ratio:.2f}x",
        compared(row, "full_output_per_s", 1.0, ".1f"),
        spread(row.spread("requests_per_s"), ".2f"),
        percentiles(row, "ttft", 1e3, ".0f"),
        percentiles(row, "itl", 1e3, ".1f"),
        percentiles(row, "e2e", 1.0, ".2f"),
        shares(row),
        spread(row.spread("gpu_s"), ".0f"),
        cost(report, row),
        str(sum(each.failed for each in row.by_round.values())),
        str(row.rounds),
    ]


def spread(of: Spread | None, form: str) -> str:
    """Return a median, with least and most where they differ."""
    if of is None:
        return "-"
    return f"{of.median:{form}}" + (f" ({of.low:{form}} to {of.high:{form}})" if of.low != of.high else "")


def compared(row: Row, figure: str, scale: float, form: str) -> str:
    """Return the median over the rounds of a figure in COMPARED, times `scale`, with its ratio to the reference."""
    found, ratio = row.spread(figure), row.ratios.get(figure)
    if found is None:
        return "-"
    return f"{found.median * scale:{form}}" + ("" if ratio is None else f" ({ratio:.2f}x)")


def percentiles(row: Row, of: str, scale: float, form: str) -> str:
    """Return the medians over the rounds of the three percentiles."""
    found = [row.spread(f"{of}_{name}") for name in ("p50", "p95", "p99")]
    return "/".join("-" if each is None else f"{each.median * scale:{form}}" for each in found)


def shares(row: Row) -> str:
    """Return where the prompts' tokens came from, as shares of all."""
    found = [row.spread(f"{name}_tokens") for name in ("hbm", "l1", "l2", "computed")]
    total = sum(each.median for each in found if each)
    return "/".join("-" if each is None or not total else f"{each.median / total:.0%}" for each in found)


def cost(report: Report, row: Row) -> str:
    """Return the price of a million output tokens, with its currency."""
    found = row.spread_of(report.cost)
    return "-" if found is None or report.prices is None else f"{found.median:.2f} {report.prices.currency}"
