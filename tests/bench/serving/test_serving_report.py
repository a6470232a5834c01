"""Every figure of a report can be made again from the file's raw samples, and is made right."""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kvstrata.bench.cli import app
from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving import figures, report, report_html, report_markdown
from kvstrata.bench.serving.profile import profiles
from kvstrata.bench.serving.record import Record, to_json
from kvstrata.bench.serving.report_cells import HEADS, cells
from kvstrata.bench.serving.report_file import read
from kvstrata.cluster import Prices
from tests.bench.serving import recorded


@pytest.fixture
def record() -> Record:
    return recorded.record()


def row(record: Record, configuration: str) -> figures.Row:
    return next(row for row in report.make(record).rows if row.configuration == configuration)


def written(record: Record, folder: Path) -> Path:
    path = folder / "run.json"
    path.write_text(json.dumps(to_json(record)))
    return path


# -- figures ---------------------------------------------------------------------------------------


def test_the_figures_of_a_phase_are_those_of_its_samples() -> None:
    found = figures.of(recorded.phase("none", 1, 4.0), gpus=2)
    assert (found.output_per_s, found.requests_per_s) == (11.0, 1.0)
    # TTFT of 0.4, 0.8, 1.2 and 1.6 s, nearest rank.
    assert (found.ttft_p50, found.ttft_p95, found.ttft_p99) == pytest.approx((0.8, 1.6, 1.6))
    assert found.itl_p50 == 0.01
    assert found.e2e_p50 == pytest.approx(0.9)
    assert (found.prompt_tokens, found.output_tokens, found.computed_tokens) == (400, 44, 300)
    assert found.gpu_s == 8.0


def test_a_failed_request_counts_as_failed_and_for_nothing_else() -> None:
    phase = recorded.phase("none", 1, 4.0)
    broken = (*phase.samples[:3], recorded.sample(3, 9.0, error="refused"))
    found = figures.of(replace(phase, samples=broken), gpus=0)
    assert (found.requests, found.failed, found.output_tokens, found.prompt_tokens) == (4, 1, 33, 300)
    assert found.ttft_p99 == pytest.approx(1.2)
    assert found.gpu_s is None


def test_a_phase_without_answers_has_no_percentiles() -> None:
    phase = replace(recorded.phase("none", 1, 4.0), samples=(recorded.sample(0, 1.0, error="x"),), tiers=None)
    found = figures.of(phase, gpus=1)
    assert (found.ttft_p50, found.itl_p50, found.hbm_tokens, found.output_per_s) == (None, None, None, 0.0)
    assert found.cost_per_million(Prices(2.0, "EUR")) is None


def test_a_million_tokens_cost_what_their_gpu_hours_cost() -> None:
    found = figures.of(recorded.phase("none", 1, 4.0), gpus=2)
    # 8 GPU-seconds at 3.6 an hour are 0.008, for 44 tokens.
    assert found.cost_per_million(Prices(3.6, "EUR")) == pytest.approx(0.008 / 44 * 1e6)
    assert found.cost_per_million(None) is None


def test_rows_have_medians_with_their_spread_and_ratios_within_the_rounds(record: Record) -> None:
    base, tiered = row(record, "none"), row(record, "dram+ssd")
    spread = base.spread("output_per_s")
    assert spread is not None
    assert (spread.median, spread.low, spread.high) == (11.0, 5.5, 11.0)
    assert base.ratios["output_per_s"] == 1.0
    # Twice as fast in each round: the slow round moves the medians, and not the ratio.
    assert tiered.ratios == {"output_per_s": 2.0, "requests_per_s": 2.0, "ttft_p50": 0.5, "ttft_p95": 0.5}
    assert report.make(record).rows[0].configuration == "none"


def test_without_the_uncached_run_the_first_configuration_is_the_reference(record: Record) -> None:
    record.phases = [phase for phase in record.phases if phase.configuration != "none"]
    made = report.make(record)
    assert made.reference == "dram+ssd"
    assert row(record, "dram+ssd").ratios["output_per_s"] == 1.0


# -- where the time goes ---------------------------------------------------------------------------


def test_the_stages_of_a_chunk_are_what_was_counted_for_each(record: Record) -> None:
    ssd, dram = profiles(record.phases, {"dram+ssd": 256})
    assert (ssd.configuration, ssd.tier, ssd.chunks) == ("dram+ssd", "ssd", 300)
    assert ssd.seconds == pytest.approx(
        {"lookup": 0.001, "queue": 0.002, "server": 0.004, "copy": 0.002, "checksum": 0.001, "H2D": 0.001}
    )
    assert ssd.serialization_share == pytest.approx(3 / 11)
    # As many chunks came from DRAM, so half of the transfers to the device are theirs.
    assert (dram.tier, dram.chunks) == ("dram", 300)
    assert dram.seconds == pytest.approx({"H2D": 0.001})
    assert dram.serialization_share is None


def test_without_lmcache_or_loads_there_is_no_profile(record: Record) -> None:
    assert profiles(record.phases, {}) == []
    assert profiles([recorded.phase("none", 1, 4.0)], {"none": 256}) == []


# -- the file and its forms ------------------------------------------------------------------------


def test_a_report_from_the_file_is_the_report_of_the_run(record: Record, tmp_path: Path) -> None:
    again = read(written(record, tmp_path))
    prices = Prices(2.0, "EUR")
    for render in (report_html.render, report_markdown.render):
        assert render(report.make(again, prices)) == render(report.make(record, prices))
    packed = tmp_path / "run.json.gz"
    packed.write_bytes(gzip.compress(written(record, tmp_path).read_bytes()))
    assert read(packed) == again


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        ("{", "no JSON"),
        ("[]", "list; allowed: an object, as the benchmarks write it"),
        ('{"schema": "x"}', "schema is x; allowed"),
        ('{"schema": "kvstrata.bench.serve/1"}', "'created' is missing"),
    ],
)
def test_a_file_that_is_no_run_is_refused_by_name(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "x.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BenchError, match=re.escape(said)) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_the_cells_of_a_row_are_the_columns(record: Record) -> None:
    made = report.make(record, Prices(3.6, "EUR"))
    told = dict(zip(HEADS, cells(made, row(record, "dram+ssd")), strict=True))
    assert told["output tokens/s"] == "22.0 (11.0 to 22.0)"
    assert told["against reference"] == "2.00x"
    assert told["TTFT ms P50/P95/P99"] == "400/800/800"
    assert told["ITL ms P50/P95/P99"] == "10.0/10.0/10.0"
    assert told["prompt tokens HBM/DRAM/SSD/computed"] == "0%/50%/50%/0%"
    assert told["per 10^6 tokens"] == "90.91 EUR"
    assert (told["failed"], told["rounds"]) == ("0", "3")


def test_the_page_has_every_configuration_every_remark_and_no_address(record: Record) -> None:
    text = report_html.render(report.make(record))
    for part in (
        "poc, cold",
        "dram+ssd chunk_size=64",
        "Sweep of chunk_size on dram+ssd",
        "Where the time of a loaded chunk goes",
        "copy and checksum take 27% of 11.00 ms of work for a chunk (300 chunks were loaded)",
        "NOT AN SSD TIER: x",
        "NOT RUN poc: needs a GPU",
        "FAILED resp, round 2: it hung",
        "OUTPUTS DIFFER dram+ssd",
        "no price of a GPU is known",
    ):
        assert part in text, part
    assert "http" not in text.replace("http-equiv", "")
    assert "<script" not in text


def test_the_markdown_has_a_line_for_each_configuration(record: Record) -> None:
    text = report_markdown.render(report.make(record))
    assert "| none | 11.0 (5.5 to 11.0) | reference |" in text
    assert "| dram+ssd | ssd | 1.00 | 2.00 | 4.00 | 2.00 | 1.00 | 1.00 | 11.00 |" in text
    assert "- NOT RUN poc: needs a GPU" in text


def test_an_incomplete_run_and_a_saturated_client_are_told_above_all_numbers(record: Record) -> None:
    record.complete = False
    record.phases[0] = replace(record.phases[0], client=replace(record.phases[0].client, cpu_share=0.99))
    record.phases.pop()
    remarks = report.make(record).remarks
    assert remarks[0].startswith("INCOMPLETE")
    assert any("rows have 2 to 3 rounds" in remark for remark in remarks)
    assert any("none: the load generator was saturated" in remark for remark in remarks)


def test_the_command_makes_the_report_again(record: Record, tmp_path: Path) -> None:
    page, table = tmp_path / "x.html", tmp_path / "x.md"
    words = ["report", str(written(record, tmp_path)), "--html", str(page), "--markdown", str(table)]
    done = CliRunner().invoke(app, [*words, "--gpu-hour", "3.6", "--currency", "EUR"])
    assert done.exit_code == 0, done.output
    assert "2.00x" in done.output
    assert page.read_text().startswith("<!doctype html>")
    assert "90.91 EUR" in table.read_text()


def test_the_command_refuses_what_is_no_run_with_status_2(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(tmp_path / "none.json")])
    assert done.exit_code == 2
    assert "No such file" in done.output
