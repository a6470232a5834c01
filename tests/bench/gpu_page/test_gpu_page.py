"""`kvstrata bench page`: what the files hold is on the page, and the repository's own page is what its files give."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from kvstrata.bench.cli import app
from kvstrata.bench.errors import BenchError
from kvstrata.bench.gpu_page import committed, overview, scaling, targets
from kvstrata.bench.gpu_page.files import read_sources, stem_of
from kvstrata.bench.gpu_page.page import Page, make
from kvstrata.bench.serving import report as reports
from kvstrata.bench.serving.correctness import Verdict
from kvstrata.bench.serving.record import Record
from kvstrata.docs.__main__ import main as docs
from kvstrata.page.image import standalone
from tests.bench.gpu_page import pages

SLOW = {"dram+ssd": 1.5}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("project") / "benchmarks" / "results"
    found = pages.results(folder, {"gpu-8b": pages.record(SLOW)})
    (folder / "gpu-8b.notes.md").write_text("Tried: twice the connections.\n")
    return [path for path in found if path.name != "gpu-8b.notes.md"]


@pytest.fixture(scope="module")
def page(results: list[Path]) -> Page:
    return make(results, "kvstrata bench page")


# -- targets -----------------------------------------------------------------------------------------


def judged(record: Record) -> dict[tuple[str, str], tuple[str, bool | None]]:
    found = targets.targets("run", reports.make(record))
    return {(target.what, target.wanted): (target.seen, target.reached) for target in found}


def test_a_run_that_is_slower_than_vllm_alone_misses_both() -> None:
    found = judged(pages.record(SLOW))
    assert found["output tokens/s, poc, cold", ">= 1.00x"] == ("0.67x", False)
    assert found["output tokens/s, poc, cold", ">= 1.40x"] == ("0.67x", False)
    assert found["quickness of P95 TTFT, poc, cold", ">= 1.00x"] == ("0.67x", False)
    assert found["outputs", "those of the uncached run"][1] is True


def test_a_run_that_serves_half_as_much_again_reaches_all_of_an_8b_model() -> None:
    found = judged(pages.record({"dram+ssd": 0.6}))
    assert [reached for _, reached in found.values()] == [True] * 7


@pytest.mark.parametrize(
    ("configuration", "tokens", "policy", "wanted"),
    [
        ("dram+ssd", 60_000, "cache_aware", {">= 1.00x"}),
        ("dram+ssd", 30_000, "cache_aware", {">= 1.00x"}),
        # It takes both replicas to hold it, and each is asked for all of it.
        ("dram+ssd", 30_000, "round_robin", {">= 1.00x", ">= 1.40x"}),
        ("dram+ssd", 29_999, "cache_aware", {">= 1.00x", ">= 1.40x"}),
        # Of another configuration: that of the row did not fit.
        ("dram", 60_000, "cache_aware", {">= 1.00x", ">= 1.40x"}),
    ],
)
def test_where_hbm_holds_all_of_a_load_nothing_but_to_be_no_slower_is_asked(
    configuration: str, tokens: int, policy: str, wanted: set[str]
) -> None:
    record = pages.holding(pages.record(), configuration, tokens, policy)
    found = [key for key in judged(record) if key[0] != targets.OUTPUTS]
    assert {least for _, least in found} == wanted
    assert (" at once, all in HBM), cold |" in "".join(overview.lines([("run", reports.make(record))]))) is (
        wanted == {">= 1.00x"}
    )


def test_a_router_that_moves_conversations_is_named(tmp_path: Path) -> None:
    def text(policy: str) -> str:
        moved = pages.holding(pages.record(), "dram+ssd", 10, policy)
        return make(pages.results(tmp_path, {"gpu-8b2": moved}), "x").text

    assert "(40 conversations, 20 at once, round_robin), cold |" in text("round_robin")
    assert ", 2 engines, round_robin\n" in text("round_robin")
    assert ", 2 engines\n" in text("cache_aware")


def test_a_32b_model_is_to_serve_twice_as_much() -> None:
    record = pages.record({"dram+ssd": 0.6})
    model: Any = record.stack["model"]
    model["name"] = "32b-shape"
    found = judged(record)
    assert found["output tokens/s, poc, cold", ">= 2.00x"][1] is False
    assert found["output tokens/s, poc, cold", ">= 1.00x"][1] is True


def test_failed_requests_miss_every_target_of_their_row() -> None:
    record = pages.record({"dram+ssd": 0.6})
    (at,) = (n for n, p in enumerate(record.phases) if (p.configuration, p.pass_) == ("dram+ssd", "warm"))
    samples = record.phases[at].samples
    record.phases[at] = replace(record.phases[at], samples=(replace(samples[0], error="x"), *samples[1:]))
    found = judged(record)
    assert found["output tokens/s, poc, warm", ">= 1.00x"][1] is False
    assert "1 requests failed" in found["output tokens/s, poc, warm", ">= 1.00x"][0]
    assert found["output tokens/s, poc, cold", ">= 1.00x"][1] is True


def test_outputs_that_differ_are_missed_and_those_that_nothing_proves_are_not_reached() -> None:
    record = pages.record()
    record.verdicts = [Verdict("dram+ssd", 8, 4096, (("q", 3),), 0.1, 0, 0.0, exact=True)]
    assert judged(record)["outputs", "those of the uncached run"][1] is False
    record.verdicts = []
    (last,) = [t for t in targets.targets("run", reports.make(record)) if t.what == targets.OUTPUTS]
    assert last.cells()[-2:] == ["not compared", "NOT PROVEN"]


def test_without_the_uncached_run_nothing_is_measured_against_it() -> None:
    record = pages.record()
    record.phases = [phase for phase in record.phases if phase.configuration != "none"]
    (only,) = targets.targets("run", reports.make(record))
    assert (only.reached, only.cells()[-1]) == (None, "NOT MEASURED")


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("dram+ssd", True),
        ("dram+ssd min_load_gbps=5.2", True),
        ("dram+ssd chunk_size=64", False),
        ("dram+ssd min_load_gbps=5 chunk_size=64", False),
        ("ssd", False),
        ("dram", False),
    ],
)
def test_only_the_tiers_as_a_site_has_them_are_judged(name: str, counts: bool) -> None:
    assert targets.judged(name) is counts


# -- the page ----------------------------------------------------------------------------------------


def test_the_page_has_every_part(page: Page) -> None:
    for part in (
        "| gpu-8b | 1 x NVIDIA H100 80GB HBM3 | poc (40 conversations, 20 at once), cold |",
        "| gpu-8b | dram+ssd | output tokens/s, poc, cold | >= 1.40x | 0.67x | NO |",
        "## gpu-8b: llama-8b-shape on NVIDIA H100 80GB HBM3",
        "| versions | vllm 0.31.0, lmcache 0.5.6 |",
        "### gpu-8b: break-even",
        "- NO: dram+ssd: output tokens/s, poc, warm: 0.67x, wanted >= 1.40x",
        "### gpu-8b: what `kvstrata plan` predicts",
        "Tried: twice the connections.",
        "## gpu-raw: the raw tier",
        "| cold load / raw read of the drive                | >= 0.9   | 0.95         | reached      |",
        "| gpu-units.json | someone/1 | 2026-11-28 |",
    ):
        assert part in page.text, part
    assert "other.json" not in page.text


def test_every_table_of_the_page_has_rows_of_one_width(page: Page) -> None:
    tables = re.findall(r"(?:^\|.*\n)+", page.text, re.MULTILINE)
    assert len(tables) > 8
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table


def test_every_plot_is_shown_with_its_figures_in_words_and_is_a_whole_file(page: Page) -> None:
    shown = dict(re.findall(r"^!\[(.+)\]\(plots/(.+)\)$", page.text, re.MULTILINE))
    assert set(shown.values()) == set(page.plots)
    assert len(page.plots) == 3
    (cold,) = [row for row in reports.make(pages.record(SLOW)).of("poc", "cold") if row.configuration == "dram+ssd"]
    assert any(f"dram+ssd, cold {cold.by_round[1].output_per_s:.0f}" in text for text in shown)
    for svg in page.plots.values():
        drawn = ElementTree.fromstring(svg)  # noqa: S314 - our own
        assert drawn.tag == "{http://www.w3.org/2000/svg}svg"
        assert drawn.findtext("{http://www.w3.org/2000/svg}desc")
        assert "prefers-color-scheme:dark" in svg
        assert "var(" not in svg


def test_a_site_as_it_is_deployed_tells_less_and_has_its_page_all_the_same(tmp_path: Path) -> None:
    record = pages.record()
    record.host = {"controller_cores": 2, "cores": 0}
    record.stack = {"gpus": 1, "gpu_names": ["NVIDIA H200"], "model": {"name": "m", "dtype": "bfloat16"}}
    text = make(pages.results(tmp_path, {"gpu-site": record}), "x").text
    assert "## gpu-site: m on NVIDIA H200" in text
    assert "| model | m: dtype bfloat16 |" in text
    assert "Not compared: model of the benchmark is 'm'" in text


def test_the_same_files_give_the_same_bytes_in_whatever_order(results: list[Path], page: Page) -> None:
    again = make(results[::-1], "kvstrata bench page")
    assert (again.text, again.plots) == (page.text, page.plots)


def test_what_is_no_chart_is_no_file_of_its_own() -> None:
    with pytest.raises(ValueError, match="no chart"):
        standalone("<svg></svg>", "x")


# -- break-even --------------------------------------------------------------------------------------


def test_what_break_even_did_is_told_where_it_is_on() -> None:
    record = pages.record()
    configurations: Any = record.plan["configurations"]
    configurations[2]["min_load_gbps"] = 5.2
    cold, warm = reports.make(record).gates
    assert (cold.pass_, warm.pass_) == ("cold", "warm")
    assert cold.cells() == ["dram+ssd", "poc, cold", "5.2", "3.00", "100", "25 (25%)", "3", "40", "2", "cutting"]


def test_without_break_even_nothing_is_said_to_be_cut() -> None:
    cold, _ = reports.make(pages.record()).gates
    assert cold.cells() == ["dram+ssd", "poc, cold", "off", "3.00", "100", "-", "-", "-", "-", "-"]


# -- at a glance -------------------------------------------------------------------------------------


def test_a_glance_tells_what_was_served_beside_vllm_alone_in_each_pass() -> None:
    report = reports.make(pages.record(SLOW))
    lines = overview.lines([("run", report)])
    assert len(lines) == 4
    alone, tiers = (
        next(row for row in report.of("poc", "warm") if row.configuration == name).by_round[1]
        for name in ("none", "dram+ssd")
    )
    assert alone.ttft_p95 is not None
    assert tiers.ttft_p95 is not None
    assert lines[-1].endswith(
        f", warm | {alone.output_per_s:,.0f} | {tiers.output_per_s:,.0f} | 0.67x "
        f"| {alone.ttft_p95 * 1e3:,.0f} | {tiers.ttft_p95 * 1e3:,.0f} | 1.50x |"
    )


def test_a_run_without_vllm_alone_is_not_in_it() -> None:
    record = pages.record()
    record.phases = [phase for phase in record.phases if phase.configuration != "none"]
    assert overview.lines([("run", reports.make(record))]) == []


# -- several engines ---------------------------------------------------------------------------------


def test_two_engines_are_compared_with_one_that_served_the_same() -> None:
    one, two, strange = pages.record(), pages.record(dict.fromkeys(("none", "dram", "dram+ssd"), 0.5)), pages.record()
    two.stack["replicas"] = strange.stack["replicas"] = 2
    workloads: Any = strange.plan["workloads"]
    workloads[0]["seed"] = 99
    source = "vllm:prompt_tokens_by_source_total{source=external_kv_transfer}"
    two.phases = [replace(phase, after={**phase.after, "vllm:1": {source: 512.0}}) for phase in two.phases]
    runs = [("one", reports.make(one)), ("two", reports.make(two)), ("strange", reports.make(strange))]
    lines = scaling.lines(runs)
    assert any(line.startswith("| two: dram | poc, cold | 2 |") and line.endswith(" 2.00x |") for line in lines)
    assert any(line.startswith("| strange: dram |") and "not measured" in line for line in lines)
    assert "| two: none, round 1 | poc, cold | vllm:1 | 0 | 512 | 0 |" in lines
    assert scaling.lines(runs[:1]) == []


def other_cards(record: Record) -> None:
    record.stack["gpu_names"] = ["NVIDIA H200, 143771 MiB, 580.159.04"]


def other_settings(record: Record) -> None:
    configurations: Any = record.plan["configurations"]
    for configuration in configurations:
        configuration["hbm_gib"] = 1.0


@pytest.mark.parametrize("change", [other_cards, other_settings])
def test_engines_on_other_cards_or_with_other_settings_are_not_compared(change: Callable[[Record], None]) -> None:
    one, two = pages.record(), pages.record()
    two.stack["replicas"] = 2
    change(one)
    rows = [line for line in scaling.lines([("one", reports.make(one)), ("two", reports.make(two))]) if "| 2 |" in line]
    assert rows
    assert all(row.endswith("| not measured | - |") for row in rows)


def test_another_driver_is_no_other_card() -> None:
    one, two = pages.record(), pages.record()
    two.stack |= {"replicas": 2, "gpus": 2, "gpu_names": ["NVIDIA H100 80GB HBM3, 81559 MiB, 1.0"] * 2}
    lines = scaling.lines([("one", reports.make(one)), ("two", reports.make(two))])
    assert any(line.startswith("| two: none | poc, cold | 2 |") and line.endswith(" (one) | 1.00x |") for line in lines)


# -- files -------------------------------------------------------------------------------------------


def test_a_name_is_the_same_packed_or_not() -> None:
    assert stem_of(Path("a/gpu-8b.json")) == stem_of(Path("gpu-8b.json.gz")) == "gpu-8b"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "no JSON"),
        ("[]", "list; allowed: an object"),
        ('{"schema": "kvstrata.bench.l2/1"}', "kvstrata.bench.l2/1: KeyError"),
        ('{"schema": "kvstrata.bench.store/1"}', "kvstrata.bench.store/1: KeyError"),
        ('{"schema": "kvstrata.bench.serve/1"}', "'created' is missing"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "gpu-x.json"
    path.write_text(text)
    with pytest.raises(BenchError, match=re.escape(said)) as caught:
        read_sources([path])
    assert str(path) in str(caught.value)


def test_runs_are_in_the_order_of_their_names_without_ending(tmp_path: Path) -> None:
    paths = [tmp_path / f"{stem}.json" for stem in ("gpu-8b2", "gpu-8b-long", "gpu-8b")]
    for path in paths:
        path.write_text("{}")
    assert [source.stem for source in read_sources(paths)] == ["gpu-8b", "gpu-8b-long", "gpu-8b2"]


def test_a_run_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gpu-x.json").write_text("{}")
    (tmp_path / "gpu-x.json.gz").write_bytes(gzip.compress(b"{}"))
    with pytest.raises(BenchError, match="gpu-x: two files"):
        read_sources(list(tmp_path.iterdir()))


# -- the commands ------------------------------------------------------------------------------------


def test_the_command_writes_the_page_and_takes_away_plots_of_runs_that_are_gone(
    results: list[Path], tmp_path: Path, page: Page
) -> None:
    into = tmp_path / "docs" / "gpu.md"
    old = tmp_path / "docs" / "plots" / "gpu-old.svg"
    old.parent.mkdir(parents=True)
    old.write_text("<svg/>")
    done = CliRunner().invoke(app, ["page", *map(str, results), "--into", str(into)])
    assert done.exit_code == 0, done.output
    assert into.read_text() == page.text
    assert {path.name for path in old.parent.iterdir()} == set(page.plots)


def test_the_command_without_results_says_so_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committed, "sources", list)
    done = CliRunner().invoke(app, ["page", "--into", str(tmp_path / "gpu.md")])
    assert done.exit_code == 2
    assert "nothing like gpu-*.json" in done.output
    assert not (tmp_path / "gpu.md").exists()


def test_the_check_of_the_docs_sees_a_page_that_is_missing_stale_or_left_over(
    results: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only this page is looked at: the others are tested by tests/docs.
    monkeypatch.setattr("kvstrata.docs.__main__.read_specs", lambda _: type("S", (), {"roles": ()}))
    monkeypatch.setattr("kvstrata.docs.__main__.render", lambda *_: "variables\n")
    project = tmp_path / "project"
    kept = project / committed.RESULTS
    assert docs([], project) == 0
    assert docs(["--check"], project) == 0
    assert not (project / committed.PAGE).exists()
    kept.mkdir(parents=True)
    for path in results:
        (kept / path.name).write_bytes(path.read_bytes())
    assert docs(["--check"], project) == 1
    assert "docs/gpu.md is stale" in capsys.readouterr().err
    assert docs([], project) == 0
    assert docs(["--check"], project) == 0
    (plot,) = (project / "docs" / "plots").glob("gpu-8b-poc-output.svg")
    plot.write_text(plot.read_text() + " ")
    assert docs(["--check"], project) == 1
    for path in kept.iterdir():
        path.unlink()
    capsys.readouterr()
    assert docs(["--check"], project) == 1
    assert "docs/gpu.md has no result" in capsys.readouterr().err
    assert docs([], project) == 0
    assert not list((project / "docs" / "plots").iterdir())
    assert docs(["--check"], project) == 0


def test_a_damaged_result_fails_the_check_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvstrata.docs.__main__.read_specs", lambda _: type("S", (), {"roles": ()}))
    monkeypatch.setattr("kvstrata.docs.__main__.render", lambda *_: "variables\n")
    (tmp_path / committed.RESULTS).mkdir(parents=True)
    (tmp_path / committed.RESULTS / "gpu-x.json").write_text(json.dumps({"schema": "kvstrata.bench.serve/1"}))
    assert docs(["--check"], tmp_path) == 1
    assert "gpu-x.json: 'created' is missing" in capsys.readouterr().err
