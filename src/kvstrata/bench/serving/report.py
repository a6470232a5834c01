"""What a report says of a run, whatever form it takes: the rows, the prices, the profiles, what a reader must know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kvstrata.bench.serving import figures, hbm_room, profile
from kvstrata.bench.serving.configurations import REFERENCE
from kvstrata.bench.serving.figures import Figures, Row
from kvstrata.bench.serving.gate import Gate, gates
from kvstrata.bench.serving.profile import Profile
from kvstrata.bench.serving.record import Record
from kvstrata.cluster import Prices


@dataclass(frozen=True)
class Report:
    """All that is drawn or written."""

    record: Record
    reference: str
    """What ratios are against."""
    rows: tuple[Row, ...]
    profiles: tuple[Profile, ...]
    gates: tuple[Gate, ...]
    prices: Prices | None
    remarks: tuple[str, ...]

    @property
    def groups(self) -> list[tuple[str, str]]:
        """Each workload with each pass."""
        return list(dict.fromkeys((row.workload, row.pass_) for row in self.rows))

    def of(self, workload: str, pass_: str) -> list[Row]:
        """Return the rows of one of them."""
        return [row for row in self.rows if (row.workload, row.pass_) == (workload, pass_)]

    def cost(self, each: Figures) -> float | None:
        """Return the price of a million output tokens."""
        return each.cost_per_million(self.prices)


def make(record: Record, prices: Prices | None = None) -> Report:
    """Make the report. `prices` go before those that the run's inventory had."""
    names = [phase.configuration for phase in record.phases]
    reference = REFERENCE if REFERENCE in names or not names else names[0]
    gpus = record.stack.get("gpus")
    rows = figures.rows(record.phases, gpus if isinstance(gpus, int) else 0, reference, _active(record.plan))
    found = profile.profiles(record.phases, _chunk_tokens(record.plan))
    own = prices or _prices(record.stack.get("prices"))
    cuts = tuple(gates(record.phases, record.plan))
    return Report(record, reference, tuple(rows), tuple(found), cuts, own, tuple(_remarks(record, rows, own)))


def _chunk_tokens(plan: Mapping[str, Any]) -> dict[str, int]:
    return {entry["name"]: entry["chunk_tokens"] for entry in plan["configurations"] if "lmcache" in entry["cache"]}


def _active(plan: Mapping[str, Any]) -> dict[str, int | None]:
    return {entry["name"]: entry.get("active") for entry in plan.get("workloads", ())}


def _prices(given: Any) -> Prices | None:
    return Prices(float(given["gpu_hour"]), str(given["currency"])) if isinstance(given, Mapping) else None


def _remarks(record: Record, rows: Sequence[Row], prices: Prices | None) -> list[str]:
    """What stands above all numbers, the gravest first."""
    found = [] if record.complete else ["INCOMPLETE: not every configuration was measured in every round"]
    found += [*hbm_room.remarks(record), *(note for note in record.notes if not hbm_room.noted(note))]
    rounds = {row.rounds for row in rows}
    if rounds and min(rounds) < max(rounds):
        found.append(f"rows have {min(rounds)} to {max(rounds)} rounds: medians of fewer mean less")
    found += list(
        dict.fromkeys(
            f"{phase.configuration}: the load generator was saturated: its own delays are in these numbers"
            for phase in record.phases
            if phase.client.saturated
        )
    )
    if record.stack.get("gpus") and prices is None:
        found.append("no price of a GPU is known (kvstrata_prices, or --gpu-hour): no cost is given")
    if not record.stack.get("gpus"):
        found.append("nothing computed on a GPU: these numbers show that it works, and not how fast it is")
    return found
