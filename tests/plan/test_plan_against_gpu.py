"""The runs on GPUs that are in the repository, and the same predicted: how far a plan may be off, and where it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstrata.bench.serving import report_file
from kvstrata.plan.against import compare
from kvstrata.plan.compared import Line, Pair
from kvstrata.plan.reading import BadInputError

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
TTFT = ("TTFT P50 s", "TTFT P95 s")
# By the run and the names of the quantities; each as a share of what was measured.
TOLERANCE = {
    "8b-h100": {"output tokens/s": 0.05, "to none": 0.05, **dict.fromkeys(TTFT, 0.2)},
    "8b": {"output tokens/s": 0.06, "to none": 0.05, **dict.fromkeys(TTFT, 0.2)},
    "32b": {"output tokens/s": 0.05, "to none": 0.05, **dict.fromkeys(TTFT, 0.1)},
    # An H200 decodes an 8B model faster than MBU 0.85 and 2 ms a step say: with DRAM output is 12 % too low.
    "8b-long": {"output tokens/s": 0.15, "to none": 0.1, **dict.fromkeys(TTFT, 0.1)},
    # P95 of these is that of 40 or 50 prompts that come at once, at an edge between two steps: off by up to 59 %. P50
    # is of a few steps: off by 1 to 18 ms.
    "8b2-asking": {"output tokens/s": 0.1, "TTFT P50 s": 0.1},
    "8b2": {"output tokens/s": 0.07, "to none": 0.05, "TTFT P50 s": 0.4},
    "8b-clients": {"output tokens/s": 0.05, "TTFT P50 s": 0.2},
    # P50 is 25 ms there, for 41.
    "8b-clients-mps": {"output tokens/s": 0.05},
    "32b-clients": {"output tokens/s": 0.05, **dict.fromkeys(TTFT, 0.1)},
}
# What is off by more than that, by the phase; a prediction that comes to hold must leave this table.
OFF = {
    # What asking LMCache about every prompt costs where HBM has everything is not modelled: output is 17 % too high,
    # P50 of TTFT half as long.
    ("8b2-asking", "dram+ssd cold"): {"output tokens/s", "TTFT P50 s"},
    ("8b2-asking", "dram+ssd warm"): {"output tokens/s", "TTFT P50 s"},
    # HBM had 64 % of the prompt tokens there, for conversations that it has went on before those that wait for LMCache:
    # P50 was 0.07 s (predicted: 0.30), P95 1.53 (1.00), and 3.5 % more of the prompt tokens were cached.
    ("8b", "dram+ssd cold"): {*TTFT, "cached"},
}
# In shares of all prompt tokens: 6 for 7 % is no grave error.
CACHED = 0.015
PHASES = {
    "8b-h100": ("none cold", "dram+ssd cold", "none warm", "dram+ssd warm"),
    # `native` is not LMCache's.
    "8b": ("none cold", "dram+ssd cold", "none warm", "dram+ssd warm"),
    "32b": ("none cold", "dram+ssd cold", "dram cold", "none warm", "dram+ssd warm", "dram warm"),
    # Nothing was loaded from the drive, so that nothing tells its rate: not predicted.
    "8b-long": ("none cold", "dram cold"),
    "8b2-asking": ("none cold", "dram+ssd cold", "none warm", "dram+ssd warm"),
    "8b2": ("none cold", "dram+ssd cold", "none warm", "dram+ssd warm"),
    "8b-clients": ("none cold", "none warm"),
    "8b-clients-mps": ("none cold", "none warm"),
    "32b-clients": ("none cold",),
}


@pytest.fixture(scope="module")
def runs() -> dict[str, tuple[Line, ...]]:
    return {name: compare(report_file.read(RESULTS / f"gpu-{name}.json.gz")).blocks[0].lines for name in PHASES}


def pairs(lines: tuple[Line, ...]) -> Iterator[tuple[str, Pair]]:
    for line in lines:
        for pair in line.pairs:
            yield f"{line.configuration} {line.pass_}", pair


@pytest.mark.parametrize("run", PHASES)
def test_every_phase_is_predicted(runs: dict[str, tuple[Line, ...]], run: str) -> None:
    assert tuple(f"{line.configuration} {line.pass_}" for line in runs[run]) == PHASES[run]


@pytest.mark.parametrize("run", PHASES)
def test_what_is_promised_is_predicted_within_its_tolerance(runs: dict[str, tuple[Line, ...]], run: str) -> None:
    found = [(phase, pair) for phase, pair in pairs(runs[run]) if pair.quantity in TOLERANCE[run]]
    assert {pair.quantity for _, pair in found} == set(TOLERANCE[run])
    for phase, pair in found:
        off = pair.quantity in OFF.get((run, phase), ())
        assert (abs(pair.error) > TOLERANCE[run][pair.quantity]) is off, (phase, pair)


@pytest.mark.parametrize("run", PHASES)
def test_what_caches_hold_is_predicted_in_every_phase(runs: dict[str, tuple[Line, ...]], run: str) -> None:
    found = [(phase, pair) for phase, pair in pairs(runs[run]) if pair.quantity == "cached"]
    assert len(found) == len(PHASES[run])
    for phase, pair in found:
        off = "cached" in OFF.get((run, phase), ())
        assert (abs(pair.predicted - pair.measured) > CACHED) is off, (phase, pair)


@pytest.mark.parametrize("run", ["8b-h100", "8b", "32b", "8b-long"])
def test_what_helps_is_predicted(runs: dict[str, tuple[Line, ...]], run: str) -> None:
    helps = [line.helps for line in runs[run] if line.configuration != "none"]
    assert helps == [(True, True)] * len(helps)


def test_replicas_that_are_asked_for_all_conversations_are_not_predicted() -> None:
    with pytest.raises(BadInputError, match="router policy of the benchmark is 'round_robin'"):
        compare(report_file.read(RESULTS / "gpu-8b2-moved.json.gz"))


@pytest.mark.parametrize("run", ["8b2-asking", "8b2"])
def test_nothing_is_promised_of_tiers_below_an_hbm_that_has_everything(
    runs: dict[str, tuple[Line, ...]], run: str
) -> None:
    """They cost 7 to 9 %, 2 to 3 where asked less, which the plan does not see; it sees that nothing is gained."""
    ratios = [pair for _, pair in pairs(runs[run]) if pair.quantity == "to none"]
    assert len(ratios) == 2
    for ratio in ratios:
        assert 0.95 <= ratio.predicted <= 1.05
        assert ratio.measured < 1
