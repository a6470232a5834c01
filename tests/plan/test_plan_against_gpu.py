"""The runs on a GPU that are in the repository, and the same predicted: what docs/plan.md says of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvstrata.bench.serving import report_file
from kvstrata.plan.against import compare
from kvstrata.plan.compared import Line

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
# By the names of the quantities; each as a share of what was measured.
TOLERANCE = {"output tokens/s": 0.05, "to none": 0.05, "cached": 0.05, "TTFT P50 s": 0.2, "TTFT P95 s": 0.2}


@pytest.fixture(scope="module")
def lines() -> list[Line]:
    return list(compare(report_file.read(RESULTS / "gpu-8b.json.gz")).blocks[0].lines)


def test_every_phase_is_predicted(lines: list[Line]) -> None:
    measured = {(line.configuration, line.pass_) for line in lines}
    assert measured == {(name, pass_) for name in ("none", "dram+ssd") for pass_ in ("cold", "warm")}


def test_what_is_promised_is_predicted_within_its_tolerance(lines: list[Line]) -> None:
    for line in lines:
        errors = {pair.quantity: pair.error for pair in line.pairs}
        for quantity, tolerance in TOLERANCE.items():
            if quantity in errors:
                assert abs(errors[quantity]) <= tolerance, (line.configuration, line.pass_, quantity)
            else:
                assert (line.configuration, quantity) == ("none", "to none")


def test_what_helps_is_predicted(lines: list[Line]) -> None:
    assert [line.helps for line in lines if line.configuration != "none"] == [(True, True)] * 2
