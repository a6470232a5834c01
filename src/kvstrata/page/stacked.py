"""Stacked bars as inline SVG: what a whole is made of, part by part, with a legend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kvstrata.page.text import safe

_WIDTH, _LABEL, _VALUE = 720, 220, 80
_ROW, _TOP, _LEGEND = 28, 24, 22
_PLOT = _WIDTH - _LABEL - _VALUE
# Told apart in both colour schemes and without seeing red from green (Okabe and Ito, 2008).
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#999999")
# About what a letter takes in the legend.
_LETTER = 7


@dataclass(frozen=True)
class Stack:
    """One bar: its parts by name, in the order in which they are drawn."""

    label: str
    parts: Mapping[str, float]

    @property
    def total(self) -> float:
        """All parts together."""
        return sum(self.parts.values())


def stacked(title: str, rows: Sequence[Stack], form: str = ".1f") -> str:
    """Return one chart; each part has the same colour in every bar, and its value as a tooltip."""
    names = list(dict.fromkeys(name for row in rows for name in row.parts))
    colours = {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(names)}
    scale = _PLOT / (max((row.total for row in rows), default=0.0) or 1)
    height = _TOP + _ROW * len(rows) + _LEGEND
    drawn = [
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{safe(title)}">',
        f'<text class="title" x="0" y="13">{safe(title)}</text>',
    ]
    for index, row in enumerate(rows):
        drawn += _row(row, _TOP + index * _ROW, scale, colours, form)
    return "".join([*drawn, *_legend(colours, height - 6), "</svg>"])


def _row(row: Stack, y: int, scale: float, colours: Mapping[str, str], form: str) -> list[str]:
    label = f'<text x="{_LABEL - 6}" y="{y + _ROW // 2 + 4}" text-anchor="end">{safe(row.label)}</text>'
    drawn, x = [label], float(_LABEL)
    for name, value in row.parts.items():
        share = f" ({value / row.total:.0%})" if row.total else ""
        drawn.append(
            f'<rect x="{x:.1f}" y="{y + 4}" width="{value * scale:.1f}" height="{_ROW - 8}" fill="{colours[name]}">'
            f"<title>{safe(name)}: {value:{form}}{share}</title></rect>"
        )
        x += value * scale
    drawn.append(f'<text x="{x + 6:.1f}" y="{y + _ROW // 2 + 4}">{row.total:{form}}</text>')
    return drawn


def _legend(colours: Mapping[str, str], y: int) -> list[str]:
    drawn, x = [], 0
    for name, colour in colours.items():
        drawn.append(f'<rect x="{x}" y="{y - 10}" width="10" height="10" fill="{colour}"/>')
        drawn.append(f'<text x="{x + 14}" y="{y}">{safe(name)}</text>')
        x += 26 + _LETTER * len(name)
    return drawn
