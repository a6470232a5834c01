"""What layers measured, as parts of the page: the load's percentiles as bars, every raw sample in a table to unfold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from kvstrata.page import html
from kvstrata.page.svg import Bar, bars
from kvstrata.verify.document import Document, Json
from kvstrata.verify.throughput.figures import percentile

type Row = Mapping[str, Json]
_PERCENTILES = (50, 95, 99)


def sections(document: Document) -> Iterator[str]:
    """Yield a section for each table that a layer left."""
    for name, rows in document["measured"].items():
        if rows:
            drawn = [html.charts(_load(rows))] if name == "throughput" else []
            yield html.section(f"Measured: {name}", *drawn, _table(f"{len(rows)} samples", rows))


def _load(rows: Sequence[Row]) -> list[str]:
    first = [float(row["ttft_s"]) for row in rows if isinstance(row.get("ttft_s"), float | int)]  # type: ignore[arg-type]
    whole = [float(row["e2e_s"]) for row in rows if isinstance(row.get("e2e_s"), float | int)]  # type: ignore[arg-type]
    gaps = [float(gap) / 1e3 for row in rows for gap in _list(row.get("gaps_us")) if isinstance(gap, float | int)]
    return [
        bars("time to first token, s (dots: requests)", _percentiles(first, first), form=".3f"),
        bars("time between two tokens, ms", _percentiles(gaps, ()), form=".1f"),
        bars("whole request, s (dots: requests)", _percentiles(whole, whole), form=".3f"),
    ]


def _percentiles(values: Sequence[float], samples: Sequence[float]) -> list[Bar]:
    found = [(percent, percentile(values, percent)) for percent in _PERCENTILES]
    # The dots stand once, beside the median that they belong to.
    return [
        Bar(f"P{percent}", value, samples if percent == _PERCENTILES[0] else (), base=percent == _PERCENTILES[0])
        for percent, value in found
        if value is not None
    ]


def _table(title: str, rows: Sequence[Row]) -> str:
    heads = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_text(row.get(name)) for name in heads] for row in rows]
    return html.folded(title, html.table(heads, cells))


def _list(value: Json) -> Sequence[Json]:
    return value if isinstance(value, list) else ()


def _text(value: Json) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return f"{len(value)} values, in the JSON" if len(value) > 4 else ", ".join(_text(each) for each in value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)
