"""What issue 7 asks of a run, what was seen, and whether that is enough.

DRAM + SSD through kvstrata.l2 is never slower than vLLM alone, in output tokens/s and P95 TTFT, in any workload; on the
proof of concept's it serves 1.4 times as much with an 8B model, and twice as much with a 32B one; and its outputs are
those of the uncached run. Where all that is held at once fits in HBM, tiers below have nothing to give: of such a run
(bench/serving/hbm_room.py) no gain is asked.

That is judged on the whole of a run. On the proof of concept's, gain and P95 TTFT are judged once more on the time in
which all conversations were under way (bench/serving/full_load.py): at its end engines idle, whatever the tiers do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kvstrata.bench.serving import hbm_room
from kvstrata.bench.serving.configurations import REFERENCE
from kvstrata.bench.serving.figures import Row
from kvstrata.bench.serving.report import Report
from kvstrata.plan.benched import shape_of
from kvstrata.plan.reading import BadInputError

JUDGED = "dram+ssd"
OUTPUTS = "outputs"
POC = "poc"
FULL = "while all were under way"
# Parameters of the two shapes, 10^9, with what they are to gain on the proof of concept's workload.
_GAINS = {(7.0, 9.0): 1.4, (30.0, 35.0): 2.0}
_VERDICTS = {True: "ok", False: "NO", None: "NOT MEASURED"}


@dataclass(frozen=True)
class Target:
    """One demand on one run."""

    run: str
    configuration: str
    what: str
    wanted: str
    seen: str
    reached: bool | None
    """None: nothing was measured that tells."""

    def cells(self) -> list[str]:
        """Return its texts, under HEADS."""
        verdict = "NOT PROVEN" if self.what == OUTPUTS and self.reached is None else _VERDICTS[self.reached]
        return [self.run, self.configuration, self.what, self.wanted, self.seen, verdict]


HEADS = ("run", "configuration", "what", "wanted", "seen", "")


def judged(name: str) -> bool:
    """Whether a configuration is DRAM + SSD as a site has it: with break-even or without, but nothing else varied."""
    base, _, changes = name.partition(" ")
    return base == JUDGED and all(change.startswith("min_load_gbps=") for change in changes.split())


def targets(run: str, report: Report) -> list[Target]:
    """Return what is asked of a run of bench serve, in the order of its rows."""
    names = [row.configuration for row in report.rows if judged(row.configuration)]
    if not names or report.reference != REFERENCE:
        needed = f"{REFERENCE} and {JUDGED}"
        return [Target(run, JUDGED, "against vLLM alone", ">= 1.00x", f"not in this run: {needed}", None)]
    found = [
        target
        for row in report.rows
        if judged(row.configuration)
        for target in _of_row(run, row, _least_gain(report, row))
    ]
    return [*found, *_outputs(run, report, list(dict.fromkeys(names)))]


def gain_of(report: Report) -> float | None:
    """Return how many times as much a run's model is to serve; None for a model of which nothing is asked."""
    try:
        size = shape_of(report.record).parameters / 1e9
    except BadInputError:
        return None
    return next((gain for (low, high), gain in _GAINS.items() if low <= size <= high), None)


def _least_gain(report: Report, row: Row) -> float | None:
    """Return what a row is to gain: where HBM holds all of its load, to be no slower is all that can be asked."""
    gain = gain_of(report)
    if gain is None or row.workload != POC:
        return None
    return 1.0 if in_hbm(report, row) else gain


def in_hbm(report: Report, row: Row) -> bool:
    """Whether HBM alone held all of a row's load."""
    return hbm_room.holds(report.record, row.configuration, row.workload)


def _of_row(run: str, row: Row, gain: float | None) -> Iterator[Target]:
    group = f"{row.workload}, {row.pass_}"
    served = row.ratios.get("output_per_s")
    yield _least(run, row, f"output tokens/s, {group}", 1.0, served)
    if gain is not None and gain > 1:
        yield _least(run, row, f"output tokens/s, {group}", gain, served)
    tail = row.ratios.get("ttft_p95")
    # As quickness: TTFT of vLLM alone over its own.
    yield _least(run, row, f"quickness of P95 TTFT, {group}", 1.0, 1 / tail if tail else None)
    # With no more conversations than are active at once there is no such time, and nothing to ask of it.
    if gain is not None and row.spread("full_output_per_s") is not None:
        full, full_tail = row.ratios.get("full_output_per_s"), row.ratios.get("full_ttft_p95")
        yield _least(run, row, f"output tokens/s {FULL}, {group}", gain, full)
        yield _least(run, row, f"quickness of P95 TTFT {FULL}, {group}", 1.0, 1 / full_tail if full_tail else None)


def _least(run: str, row: Row, what: str, wanted: float, seen: float | None) -> Target:
    told = "not measured" if seen is None else f"{seen:.2f}x"
    if seen is not None and seen < wanted and told == f"{wanted:.2f}x":
        told = f"{seen:.4f}x"
    if failed := sum(each.failed for each in row.by_round.values()):
        # Who answers half of the requests answers them fast.
        return Target(run, row.configuration, what, f">= {wanted:.2f}x", f"{told}, {failed} requests failed", False)
    return Target(run, row.configuration, what, f">= {wanted:.2f}x", told, None if seen is None else seen >= wanted)


def _outputs(run: str, report: Report, names: list[str]) -> Iterator[Target]:
    verdicts = {verdict.configuration: verdict for verdict in report.record.verdicts}
    for name in names:
        verdict = verdicts.get(name)
        seen = "not compared" if verdict is None else verdict.text()
        yield Target(run, name, OUTPUTS, "those of the uncached run", seen, verdict.ok if verdict else None)
