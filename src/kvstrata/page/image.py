"""A chart as an SVG file of its own, readable on light and dark pages, with its text for who cannot see it."""

from __future__ import annotations

import re

from kvstrata.page.text import safe

# The colours of kvstrata.page.html, which a file of its own must bring along; written out, for what is no browser.
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#1d2733}.title{font-weight:600}.paper{fill:#fff}"
    ".bar{fill:#6f9bd1}.base{fill:#1f5fa8}circle{fill:#10233a}"
    "line.reference{stroke:#b3261e;stroke-dasharray:4 3}text.reference{fill:#b3261e}"
    "@media (prefers-color-scheme:dark){text{fill:#e4e9ef}.paper{fill:#14191f}.bar{fill:#3f6ea3}.base{fill:#8fbdf0}"
    "circle{fill:#dbe6f2}line.reference{stroke:#ff8a80}text.reference{fill:#ff8a80}}"
)
_OPENING = re.compile(r'<svg viewBox="0 0 (\d+) (\d+)" role="img" aria-label="([^"]*)">')
_EDGE = 10


def standalone(chart: str, text: str) -> str:
    """Return a chart of kvstrata.page as a whole file.

    Args:
        chart: what `bars` or `stacked` returned.
        text: what it shows, in words.

    Raises:
        ValueError: it is none of those.
    """
    found = _OPENING.match(chart)
    if found is None:
        raise ValueError("no chart of kvstrata.page")
    width, height = int(found[1]) + 2 * _EDGE, int(found[2]) + 2 * _EDGE
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{-_EDGE} {-_EDGE} {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-labelledby="t d"><title id="t">{found[3]}</title>'
        f'<desc id="d">{safe(text)}</desc><style>{_STYLE}</style>'
        f'<rect class="paper" x="{-_EDGE}" y="{-_EDGE}" width="{width}" height="{height}"/>'
    )
    return head + chart[found.end() :] + "\n"
