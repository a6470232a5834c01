"""A number and where it comes from: no figure in a plan stands without that."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Basis(StrEnum):
    """What a figure rests on, the most trustworthy first."""

    MEASURED = "measured"
    GIVEN = "given"
    """By the user, who may have measured or read it."""
    DATA_SHEET = "data sheet"
    ASSUMED = "assumed"


@dataclass(frozen=True)
class Figure:
    """A value with its basis. The unit is in the name of the field that holds it."""

    value: float
    basis: Basis
    source: str
    """Who says so: a document, a file, an option."""

    def times(self, factor: float, why: str = "") -> Figure:
        """Return the figure scaled; the basis stays, `why` is added to the source."""
        return Figure(self.value * factor, self.basis, f"{self.source}, {why}" if why else self.source)


def assumed(value: float, source: str) -> Figure:
    """Return a figure that nobody measured here."""
    return Figure(value, Basis.ASSUMED, source)
