"""Medians, and the tables of a run."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from kvstrata.bench.moved.record import Case, Results, Throughput, Turn

TURN_HEADINGS = (
    "the next turn",
    "turns",
    "first token, median",
    "lowest to highest",
    "of tokens",
    "own cache",
    "L1",
    "L2 (SSD)",
    "computed",
)
LOAD_HEADINGS = (
    "in service",
    "rounds",
    "requests",
    "failed",
    "output tokens/s, median",
    "all tokens/s",
    "to the best node",
)


def turn_lines(turns: Sequence[Turn]) -> list[list[str]]:
    """One line for each case that was seen, in the order of `Case`; medians of its turns."""
    lines = []
    for case in Case:
        some = [turn for turn in turns if turn.case is case]
        if not some:
            continue
        times = [turn.ttft_s for turn in some]
        tiers = [
            [turn.prompt_tokens for turn in some],
            [turn.own_cache for turn in some],
            [turn.l1 for turn in some],
            [turn.l2 for turn in some],
            [turn.computed for turn in some],
        ]
        spread = f"{min(times):.2f} to {max(times):.2f} s"
        counts = [f"{median(values):.0f}" for values in tiers]
        lines.append([case.value, str(len(some)), f"{median(times):.2f} s", spread, *counts])
    return lines


def load_lines(loads: Sequence[Throughput]) -> list[list[str]]:
    """One line for each set of nodes, the single ones first."""
    groups = list(dict.fromkeys(load.nodes for load in loads))
    rates = {nodes: median(_rate(load) for load in loads if load.nodes == nodes) for nodes in groups}
    best = max((rate for nodes, rate in rates.items() if len(nodes) == 1), default=0.0)
    lines = []
    for nodes in sorted(groups, key=len):
        some = [load for load in loads if load.nodes == nodes]
        every = median((load.prompt_tokens + load.output_tokens) / load.wall_s for load in some)
        lines.append(
            [
                " and ".join(nodes),
                str(len(some)),
                str(sum(load.requests for load in some)),
                str(sum(load.failed for load in some)),
                f"{rates[nodes]:.1f}",
                f"{every:.0f}",
                f"{rates[nodes] / best:.2f}" if best else "-",
            ]
        )
    return lines


def markdown(results: Results) -> str:
    """The tables for a page of the documentation."""
    parts = []
    if results.turns:
        parts.append(_table(TURN_HEADINGS, turn_lines(results.turns)))
    if results.throughput:
        parts.append(_table(LOAD_HEADINGS, load_lines(results.throughput)))
    return "\n".join(parts)


def _rate(load: Throughput) -> float:
    return load.output_tokens / load.wall_s


def _table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [headings, ["---"] * len(headings), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
