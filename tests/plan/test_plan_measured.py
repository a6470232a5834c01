"""Measured baselines: the three forms of file, and what they replace."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstrata.plan.assess import Question, assess
from kvstrata.plan.figures import Basis
from kvstrata.plan.measured import (
    Hit,
    Measured,
    measured_engine,
    measured_node,
    measured_ssd,
    read_measured,
)
from kvstrata.plan.reading import BadInputError
from kvstrata.plan.tiers import DRAM_LOOKUP_S, TierName, store_lookup_s
from tests.plan.samples import deployment, engine, node, seen

# As docs/drives.md shows it.
BASELINE: dict[str, Any] = {
    "date": "2026-11-24T18:44:06Z",
    "fio": "fio-3.33",
    "seconds": 5,
    "on_written_data": True,
    "read_from_bytes": 34359738368,
    "used_bytes": 512000000000,
    "seq_1m": {"mb_per_s": 3500.5, "iops": 3338, "p99_us": 8716.3},
    "rand_4k": {"mb_per_s": 2911.0, "iops": 710000, "p99_us": 98.8},
    "rand_128k": {"mb_per_s": 3201.4, "iops": 24424, "p99_us": 1204.2},
}
DOC = Path(__file__).parents[2] / "docs" / "drives.md"


def fact(**drives: Any) -> dict[str, Any]:
    return {"schema": 1, "drives": {name: {"devices": [], "baseline": value} for name, value in drives.items()}}


def report(steps: list[dict[str, Any]]) -> dict[str, Any]:
    return {"schema": 1, "checks": [], "tiers": {"ran": True, "steps": steps}}


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(document: Any) -> Path:
        path = tmp_path / "measured.json"
        path.write_text(json.dumps(document))
        return path

    return write


def test_the_fact_that_the_drives_page_shows_can_be_read(written: Any) -> None:
    text = DOC.read_text()
    block = text[text.index('{"schema": 1,\n "drives"') :].split("```")[0]
    found = read_measured(written(json.loads(block)))
    assert found.reads["d0"].value == pytest.approx(6.5432)


def test_measured_reads_replace_those_of_the_data_sheet(written: Any) -> None:
    found = measured_node(node(), read_measured(written(fact(d0=BASELINE))))
    assert (found.drives[0].read_gbps.value, found.drives[0].read_gbps.basis) == (3.5005, Basis.MEASURED)
    assert found.drives[1].read_gbps.basis is Basis.DATA_SHEET
    assert found.drives[0].write_gbps.basis is Basis.DATA_SHEET


def test_reads_of_unwritten_blocks_count_only_below_the_data_sheet(written: Any) -> None:
    unwritten = BASELINE | {"on_written_data": False}
    quick = unwritten | {"seq_1m": {"mb_per_s": 60000.0}}
    found = measured_node(node(), read_measured(written(fact(d0=unwritten, d1=quick))))
    assert found.drives[0].read_gbps.value == 3.5005
    assert "never written" in found.drives[0].read_gbps.source
    assert found.drives[1].read_gbps.basis is Basis.DATA_SHEET


def test_a_drive_without_baseline_is_left_alone(written: Any) -> None:
    assert read_measured(written({"schema": 1, "drives": {"d0": {"devices": []}}})).reads == {}


def test_a_measured_drive_that_the_node_lacks_is_refused(written: Any) -> None:
    with pytest.raises(BadInputError, match=r"measured\.drives is 'x9'; allowed: drives of the node: d0, d1"):
        measured_node(node(), read_measured(written(fact(x9=BASELINE))))


@given(mfu=st.floats(0.05, 0.95), tokens=st.integers(2000, 30_000))
@settings(deadline=None)
def test_a_cold_prompt_tells_the_mfu(mfu: float, tokens: int) -> None:
    made = replace(engine(), mfu=seen(mfu))
    found = measured_engine(engine(), Measured(cold=Hit(tokens, 0, made.prefill_s(tokens), "test")))
    assert found.mfu.value == pytest.approx(mfu, rel=0.02)
    assert found.mfu.basis is Basis.MEASURED


def test_a_prompt_that_was_quicker_than_the_peak_is_refused() -> None:
    with pytest.raises(BadInputError, match=r"measured cold TTFT is 0.05; allowed: .*is it this GPU"):
        measured_engine(engine(), Measured(cold=Hit(20_000, 0, 0.05, "test")))


@given(rate=st.floats(0.1, 20))
def test_a_hit_tells_the_rate_of_the_stores(rate: float) -> None:
    made = engine()
    loading = 4096 * 131072 / (rate * 1e9)
    ttft = made.prefill_s(4113, 4096) + DRAM_LOOKUP_S.value + store_lookup_s(16) + loading
    found = measured_ssd(made, Measured(hit=Hit(4113, 4096, ttft, "test")), 256)
    assert found
    assert found.value == pytest.approx(rate, rel=1e-6)


def test_a_verify_report_gives_both(written: Any) -> None:
    steps = [
        {"name": "cold", "ttft_s": 1.5, "prompt_tokens": 20000, "l1_tokens": 0, "l2_tokens": 0},
        {"name": "after restart", "ttft_s": 0.9, "prompt_tokens": 20000, "l1_tokens": 0, "l2_tokens": 19968},
        {"name": "other node", "ttft_s": 0.8, "prompt_tokens": 20000, "l1_tokens": 0, "l2_tokens": 19968},
    ]
    found = read_measured(written(report(steps)))
    assert (found.cold and found.cold.ttft_s, found.hit and found.hit.ttft_s) == (1.5, 0.8)
    planned = assess(node(), deployment(), found, Question(simulated=False))
    assert planned.engine.mfu.basis is Basis.MEASURED
    assert planned.ssd_measured
    assert planned.ssd_measured.value == pytest.approx(19968 * 131072 / 0.76 / 1e9, rel=0.05)
    tier = next(tier for tier in planned.tiers if tier.tier.name is TierName.SSD)
    assert tier.tier.slowest[0] == "as measured"


def test_a_verify_report_without_proof_gives_nothing(written: Any) -> None:
    assert read_measured(written({"schema": 1, "checks": [], "tiers": None})) == Measured()


def test_figures_of_ones_own(written: Any) -> None:
    own = {
        "schema": "kvstrata.plan.measured/1",
        "mfu": 0.5,
        "mbu": 0.8,
        "link_gbps": 55,
        "ssd_gbps": 12.5,
        "drives": {"d0": {"read_gbps": 6.5, "write_gbps": 3}},
    }
    found = read_measured(written(own))
    planned = assess(node("1xH100-SXM"), deployment(), found, Question(simulated=False))
    assert (planned.engine.mfu.value, planned.engine.mbu.value, planned.node.gpu.link_gbps.value) == (0.5, 0.8, 55)
    assert planned.ssd_measured
    assert planned.ssd_measured.value == 12.5
    assert planned.node.drives[0].write_gbps.value == 3


def test_the_later_of_two_files_counts() -> None:
    first, second = Measured(mfu=seen(0.4), link_gbps=seen(50)), Measured(mfu=seen(0.5))
    both = second.over(first)
    assert (both.mfu, both.link_gbps) == (seen(0.5), seen(50))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "measured is .*; allowed: a drives' fact, a verify report, or a file with schema"),
        ([], "measured is .*; allowed: a file with one object, not a list"),
        ({"schema": 2, "drives": {}}, "measured.schema is 2; allowed: 1"),
        ({"schema": 9, "checks": [], "tiers": {}}, "measured.schema is 9; allowed: 1"),
        (fact(d0={"on_written_data": True}), "drives.d0.baseline.seq_1m is None; allowed: a mapping"),
        (fact(d0=BASELINE | {"seq_1m": {"mb_per_s": -1}}), "seq_1m.mb_per_s is -1; allowed: a number of at least"),
        (report([{"name": "cold", "ttft_s": 0, "prompt_tokens": 1}]), r"\[cold\].ttft_s is 0; allowed: a number"),
        ({"schema": "kvstrata.plan.measured/1", "mfu": 1.5}, "measured.mfu is 1.5; allowed: a number, 0.0001 to 1"),
        ({"schema": "kvstrata.plan.measured/1", "speed": 1}, "measured.speed is 1; allowed: only the fields schema"),
    ],
)
def test_a_file_of_no_known_form_is_refused(written: Any, document: Any, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        read_measured(written(document))
