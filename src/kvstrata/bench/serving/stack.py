"""What the run loop wants of a place that can serve: started with a configuration, counted, emptied, stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from kvstrata.bench.serving.configurations import Configuration
from kvstrata.bench.serving.model import Counters, Endpoint, Json


@dataclass(frozen=True)
class Running:
    """A configuration that answers."""

    configuration: Configuration
    endpoint: Endpoint
    start_s: float
    """Seconds until everything was healthy; no measurement contains them."""
    options: Mapping[str, Json] = field(default_factory=dict)
    """Exactly what each part was given, by its name."""
    direct: tuple[str, ...] = ()
    """The engines' own base URLs, without a router; the correctness sample goes to the first."""
    notes: tuple[str, ...] = ()


class Stack(Protocol):
    """Somewhere to serve. Errors are BenchError, in words that a user can act on."""

    def describe(self) -> Mapping[str, Json]:
        """Return what the report says of the place: accelerator, versions, model, what is where."""

    def refuses(self, configuration: Configuration) -> str | None:
        """Return why a configuration cannot run here, None if it can."""

    def start(self, configuration: Configuration) -> Running:
        """Start it with every tier empty, in place of what ran before."""

    def begin(self) -> Counters:
        """Return the counters now, and begin to sample what is only true for a moment."""

    def end(self) -> Counters:
        """Return the counters now, with what was sampled since `begin`."""

    def settle(self, timeout_s: float) -> str | None:
        """Wait until what was handed to the stores is in them; return a note if that took too long."""

    def forget_memory(self) -> str | None:
        """Take what the stores hold out of the page cache, so that it is read from the drive; a note if it cannot."""

    def clear_engines(self) -> None:
        """Empty the engines' own prefix caches alone."""

    def clear(self) -> Running:
        """Empty every tier; return what runs then, which is another one where only a new start empties a tier."""

    def alive(self) -> str | None:
        """Return what has died since the start, None while all run."""

    def stop(self) -> None:
        """End what was started; safe to call twice."""
