"""Predictions beside what was measured, as data; what prints them only reads it."""

from __future__ import annotations

from dataclasses import dataclass

from kvstrata.plan.figures import Figure
from kvstrata.plan.gpus import Gpu
from kvstrata.plan.shape import Shape

TOLERANCE = 0.15
"""A prediction that is off by more, of what was measured, is off: issue 5 asks for 15 %."""
QUANTITIES = ("output tokens/s", "to none", "cached", "TTFT P50 s", "TTFT P95 s", "TTFT of a miss s", "of a hit s")


@dataclass(frozen=True)
class Pair:
    """One quantity."""

    quantity: str
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """How far the prediction is off, of what was measured."""
        return self.predicted / self.measured - 1 if self.measured else float(self.predicted != 0)

    @property
    def off(self) -> bool:
        """Whether that is too much."""
        return abs(self.error) > TOLERANCE


@dataclass(frozen=True)
class Line:
    """One configuration under one workload in one pass."""

    workload: str
    pass_: str
    configuration: str
    pairs: tuple[Pair, ...]
    helps: tuple[bool, bool] | None
    """Whether it serves more than vLLM alone: predicted, measured. None for vLLM alone."""
    ssd_gbps: Figure | None

    @property
    def wrong(self) -> bool:
        """Whether a tier that helps was said to hurt, or the other way round."""
        return self.helps is not None and self.helps[0] != self.helps[1]


@dataclass(frozen=True)
class Block:
    """Everything predicted with one MFU."""

    title: str
    mfu: Figure
    lines: tuple[Line, ...]

    @property
    def off(self) -> list[tuple[Line, Pair]]:
        """What is off by more than TOLERANCE."""
        return [(line, pair) for line in self.lines for pair in line.pairs if pair.off]


@dataclass(frozen=True)
class Comparison:
    """All of it."""

    shape: Shape
    gpu: Gpu
    blocks: tuple[Block, ...]
    room: tuple[Pair, ...]
    """Tokens that HBM has room for, where nothing capped it."""
    alone: tuple[Pair, ...]
    """Seconds until all tokens of a prompt's answer were there, one prompt at a time."""
    notes: tuple[str, ...]

    @property
    def off(self) -> bool:
        """Whether the plan's own figures missed anything by more than TOLERANCE, or any verdict."""
        own = self.blocks[0]
        return bool(own.off or any(line.wrong for line in own.lines) or any(pair.off for pair in self.room))
