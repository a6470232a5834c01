"""The Prometheus text format, as far as counters and gauges need it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?\s+(\S+)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Samples:
    """The samples of one scrape: (name, labels, value)."""

    rows: tuple[tuple[str, Mapping[str, str], float], ...]

    def total(self, name: str, **labels: str) -> float:
        """The sum over every sample of `name` with those labels; 0 when there is none.

        A counter that has not counted yet is absent in LMCache's metrics.
        """
        return sum(
            value
            for row, has, value in self.rows
            if row == name and all(has.get(key) == wanted for key, wanted in labels.items())
        )

    def has(self, name: str) -> bool:
        """Whether there is any sample of `name`."""
        return any(row == name for row, _, _ in self.rows)


def parse(text: str) -> Samples:
    """Read a scrape; lines that aren't samples are passed over."""
    rows = []
    for line in text.splitlines():
        match = _SAMPLE.match(line)
        if match is None:
            continue
        name, labels, value = match.groups()
        try:
            rows.append((name, dict(_LABEL.findall(labels or "")), float(value)))
        except ValueError:
            continue
    return Samples(tuple(rows))
