"""A report as one HTML file that needs nothing else: inline style and SVG, no script, no address."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kvstrata.page.text import safe

# A browser then loads nothing, whatever a page should come to hold.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2733; --soft: #5d6b7a; --paper: #fff; --line: #d9dfe6; --bar: #6f9bd1;
  --base: #1f5fa8; --dot: #10233a; --mark: #b3261e; --note: #fff4d6; --good: #1b6e3c; --warn: #8a5a00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9ef; --soft: #9aa7b5; --paper: #14191f; --line: #323b46;
  --bar: #3f6ea3; --base: #8fbdf0; --dot: #dbe6f2; --mark: #ff8a80; --note: #3a3213; --good: #7fd6a0;
  --warn: #f0c36a; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
  max-width: 1460px; padding: 0 1rem; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.2rem; border-bottom: 1px solid var(--line); padding-bottom: .3rem; }
.notes li, .failures li { background: var(--note); padding: .4rem .7rem; margin: .3rem 0; list-style: none; }
.notes, .failures { padding: 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(420px, 1fr)); gap: 1.2rem; }
svg { width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
svg .title { font-weight: 600; } .bar { fill: var(--bar); } .base { fill: var(--base); } circle { fill: var(--dot); }
svg line.reference { stroke: var(--mark); stroke-dasharray: 4 3; } svg text.reference { fill: var(--mark); }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .55rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; } thead th { vertical-align: bottom; }
.wide { overflow-x: auto; } dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; }
dt { color: var(--soft); } dd { margin: 0; } .doubt { color: var(--mark); }
"""


@dataclass(frozen=True)
class Cell:
    """A table's cell of a class of its own."""

    text: str
    kind: str


def page(title: str, parts: Iterable[str], style: str = "") -> str:
    """Return the page. `parts` are HTML already; `style` is added to what all reports share."""
    return "".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{safe(title)}</title><style>{_STYLE}{style}</style></head><body>",
            f"<h1>{safe(title)}</h1>",
            *parts,
            "</body></html>\n",
        ]
    )


def facts(pairs: Mapping[str, str]) -> str:
    """Return a list of names and what they are."""
    return "<dl>" + "".join(f"<dt>{safe(name)}</dt><dd>{safe(text)}</dd>" for name, text in pairs.items()) + "</dl>"


def notes(kind: str, items: Sequence[str]) -> str:
    """Return a list of remarks, `kind` being `notes` or `failures`; nothing where there is none."""
    return f'<ul class="{kind}">' + "".join(f"<li>{safe(item)}</li>" for item in items) + "</ul>" if items else ""


def section(title: str, *parts: str) -> str:
    """Return the parts under a heading."""
    return f"<h2>{safe(title)}</h2>" + "".join(parts)


def charts(drawn: Iterable[str]) -> str:
    """Return charts side by side, as many as the window is wide."""
    return f'<div class="charts">{"".join(drawn)}</div>'


def table(heads: Sequence[str], rows: Iterable[Sequence[str | Cell]]) -> str:
    """Return a table that scrolls by itself where it is wider than the window."""
    head = "".join(f"<th>{safe(name)}</th>" for name in heads)
    body = "".join("<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def folded(title: str, *parts: str) -> str:
    """Return parts that are shown when their title is clicked."""
    return f"<details><summary>{safe(title)}</summary>{''.join(parts)}</details>"


def _cell(cell: str | Cell) -> str:
    if isinstance(cell, Cell):
        return f'<td class="{cell.kind}">{safe(cell.text)}</td>'
    return f"<td>{safe(cell)}</td>"
