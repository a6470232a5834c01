"""Bar charts as inline SVG: medians as bars, every sample as a dot, so that noise is seen and not hidden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvstrata.page.text import safe

_WIDTH, _LABEL, _VALUE = 460, 176, 56
# For labels that are longer, where a chart has a page's width for itself.
_MORE = 130
_ROW, _TOP = 26, 22
# A reference farther off would leave the bars too short to compare.
_FAR = 1.6
_PLOT = _WIDTH - _LABEL - _VALUE
# About what a letter takes of a label.
_LETTER = 6.7


@dataclass(frozen=True)
class Bar:
    """One bar: the median and what it is the median of."""

    label: str
    median: float
    samples: Sequence[float]
    base: bool = False


@dataclass(frozen=True)
class Reference:
    """A dashed line across all bars."""

    label: str
    value: float


def bars(
    title: str, rows: Sequence[Bar], reference: Reference | None = None, form: str = ".0f", *, wide: bool = False
) -> str:
    """Return one chart; the axis starts at zero, for bars are compared by length. `wide` leaves more for labels."""
    label = _LABEL + _MORE * wide
    most = max((value for bar in rows for value in (bar.median, *bar.samples)), default=0.0)
    drawn = reference is not None and reference.value <= most * _FAR
    scale = _PLOT / (max(most, reference.value if reference and drawn else 0.0) or 1)
    height = _TOP + _ROW * len(rows) + (16 if reference else 4)
    parts = [
        f'<svg viewBox="0 0 {_WIDTH + label - _LABEL} {height}" role="img" aria-label="{safe(title)}">',
        f'<text class="title" x="0" y="13">{safe(title)}</text>',
    ]
    for index, bar in enumerate(rows):
        parts += _bar(bar, _TOP + index * _ROW, scale, form, label)
    if reference:
        x = label + (reference.value * scale if drawn else _PLOT)
        if drawn:
            parts.append(f'<line class="reference" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{height - 14}"/>')
        parts.append(
            f'<text class="reference" x="{x:.1f}" y="{height - 3}" text-anchor="end">'
            f"{safe(reference.label)} {reference.value:{form}}{'' if drawn else ', to the right of this'}</text>"
        )
    return "".join([*parts, "</svg>"])


def _bar(bar: Bar, y: int, scale: float, form: str, label: int) -> list[str]:
    middle = y + _ROW // 2
    end = label + max([bar.median, *bar.samples]) * scale
    dots = "".join(
        f'<circle cx="{label + value * scale:.1f}" cy="{middle}" r="2.5"><title>{value:{form}}</title></circle>'
        for value in bar.samples
    )
    return [
        f'<text x="{label - 6}" y="{middle + 4}" text-anchor="end">{safe(_short(bar.label, int(label / _LETTER)))}'
        f"<title>{safe(bar.label)}</title></text>",
        f'<rect class="{"base" if bar.base else "bar"}" x="{label}" y="{y + 4}" width="{bar.median * scale:.1f}" '
        f'height="{_ROW - 8}"/>',
        dots,
        f'<text x="{end + 6:.1f}" y="{middle + 4}">{bar.median:{form}}</text>',
    ]


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
