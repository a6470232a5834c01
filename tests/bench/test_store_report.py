from __future__ import annotations

import json
import re
from dataclasses import fields
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from kvstrata.bench import html, markdown, results, table
from kvstrata.bench.rawdisk import RawSample
from kvstrata.bench.results import Failure, Row, Run, Sample
from kvstrata.bench.study import DRAM, Setup
from kvstrata.bench.summary import summarize
from kvstrata.page.svg import Bar, Reference, bars
from kvstrata.paths import PROJECT
from tests.bench.samples import ODD, run, sample


def row(setup: str, workload: str, of: Run | None = None) -> Row:
    (found,) = [row for row in summarize(of or run()) if (row.setup, row.workload) == (setup, workload)]
    return found


def test_medians_and_their_range_are_of_the_repeats() -> None:
    found = row("base", "set")
    assert found.mb_s == pytest.approx(110)
    assert (found.repeats, found.mb_s_low, found.mb_s_high) == (3, 100, 200)


def test_ratios_compare_within_a_round() -> None:
    assert row(ODD.name, "set").to_base == pytest.approx(0.8)
    assert row("base", "set").to_base == 1
    assert row("base", "set").to_dram == pytest.approx(0.1)


def test_writes_at_rest_are_compared_with_raw_writes_and_cold_reads_with_raw_reads() -> None:
    assert row("base", "set").to_raw == pytest.approx(0.25)
    assert row("base", "get_cold").to_raw == pytest.approx(0.75)


def test_dram_is_not_compared_with_the_drive() -> None:
    assert row(DRAM, "set").to_raw is None


def test_without_a_baseline_there_is_no_ratio_to_it() -> None:
    made = run()
    made.samples = [one for one in made.samples if one.setup != DRAM]
    assert row("base", "set", made).to_dram is None


@pytest.mark.parametrize(
    ("workload", "read_amp", "as_named"),
    [
        ("get_cold", 1.0, True),
        ("get_cold", 0.5, False),
        ("get_cold", None, True),
        ("get_warm", 0.0, True),
        ("get_warm", 0.5, False),
        ("mixed", 0.5, True),
    ],
)
def test_a_cold_read_from_memory_and_a_warm_one_from_the_drive_are_told(
    workload: str, read_amp: float | None, as_named: bool
) -> None:
    assert sample(workload=workload, read_amp_process=read_amp).as_named is as_named


def test_a_doubtful_row_says_so_in_table_and_page() -> None:
    made = run()
    made.samples.append(sample(workload="get_cold", repeat=4, read_amp_process=0.2, capped=True))
    assert table.doubts(row("base", "get_cold", made)) == "NOT COLD, time ran out"
    assert "NOT COLD, time ran out" in html.render(made, summarize(made))
    assert "NOT COLD" in shown(made)


def shown(made: Run) -> str:
    out = StringIO()
    table.show(made, summarize(made), Console(file=out, width=240))
    return out.getvalue()


def test_failures_and_notes_are_loud_in_table_and_page() -> None:
    made = run()
    made.failures.append(Failure("wal: on", 2, "the server ended <early>"))
    made.notes.append("NO REDIS-SERVER on this machine")
    assert "FAILED wal: on, round 2: the server ended <early>" in shown(made)
    assert "NO REDIS-SERVER" in shown(made)
    page = html.render(made, summarize(made))
    assert "FAILED wal: on, round 2: the server ended &lt;early&gt;" in page
    assert "NO REDIS-SERVER" in page


def test_the_markdown_has_one_line_for_each_setup_and_every_note() -> None:
    made = run()
    made.notes.append("THE MACHINE WAS BUSY")
    text = markdown.render(made, summarize(made))
    table_lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table_lines) == 2 + 3
    assert len({line.count("|") for line in table_lines}) == 1
    assert "| base | 110 (100-200) | 55 | 330 (300-600) |" in text
    assert "Raw drive (fio-3.33): write 220, read 440 MB/s." in text
    assert "- THE MACHINE WAS BUSY" in text


class Page(HTMLParser):
    """Every tag and attribute of a page, and whether its tags are balanced."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_refers_to_nothing_outside_itself() -> None:
    text = html.render(run(), summarize(run()))
    page = Page()
    page.feed(text)
    assert not {name for name, _ in page.attributes} & {"src", "href", "xlink:href", "srcset", "data", "action"}
    assert not page.tags & {"script", "link", "iframe", "img", "object", "embed", "base"}
    assert not re.search(r"https?:|//\w|@import|url\(", text)


def test_the_page_is_balanced_whatever_a_setup_is_called() -> None:
    page = Page()
    page.feed(html.render(run(), summarize(run())))
    page.close()
    assert page.open == []
    assert "string" not in page.tags


def test_the_page_has_a_chart_for_every_axis_and_the_raw_drive_in_it() -> None:
    text = html.render(run(), summarize(run()))
    assert "<h2>layout</h2>" in text
    assert "raw drive 220" in text
    assert text.count("<svg") >= 6


def test_a_chart_shows_every_sample_and_bars_to_scale() -> None:
    drawn = bars("t", [Bar("a", 100, [90, 100, 110]), Bar("b", 50, [50])], Reference("raw", 110))
    widths = [float(width) for width in re.findall(r'<rect[^>]* width="([\d.]+)"', drawn)]
    assert drawn.count("<circle") == 4
    assert widths[0] == pytest.approx(2 * widths[1], abs=0.2)


def test_a_reference_far_off_is_told_and_does_not_shrink_the_bars() -> None:
    near = bars("t", [Bar("a", 100, [100])])
    far = bars("t", [Bar("a", 100, [100])], Reference("raw", 1000))
    assert re.findall(r'<rect[^>]* width="([\d.]+)"', near) == re.findall(r'<rect[^>]* width="([\d.]+)"', far)
    assert "raw 1000, to the right of this" in far


def test_the_file_holds_every_sample_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    results.write_json(path, run(), summarize(run()))
    data = json.loads(path.read_text())
    assert data["schema"] == results.SCHEMA
    assert [Sample(**entry) for entry in data["samples"]] == run().samples
    assert [Row(**entry) for entry in data["summary"]] == summarize(run())
    assert [Setup(**entry) for entry in data["setups"]] == list(run().setups)


@pytest.mark.parametrize("kind", [Run, Sample, Row, RawSample, Failure, Setup], ids=lambda kind: kind.__name__)
def test_the_page_of_the_benchmark_explains_every_field(kind: type) -> None:
    text = (PROJECT / "docs" / "bench.md").read_text()
    assert [field.name for field in fields(kind) if f"`{field.name}`" not in text] == []
