"""A whole run on a site of fakes: what is written, what is said not to be judged, and what pages make of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kvstrata.bench.errors import BenchError
from kvstrata.contract import record, report, site_run
from kvstrata.contract.site_run import Options, run_site
from tests.contract import test_site_load
from tests.contract.site_fakes import DeployedSite

soon = test_site_load._soon
PAGE = (
    "# A page\n\n<!-- kvstrata bench routing --report -->\n\nmocked\n\n<!-- end -->\n\n{}\n\nold\n\n<!-- end -->\nend\n"
)
MARK = "<!-- kvstrata bench routing -i INVENTORY, --report -->"


def run(
    site: DeployedSite, folder: Path, monkeypatch: pytest.MonkeyPatch, arms: str | None = None, *, disrupt: bool = False
) -> dict[str, Any]:
    @contextmanager
    def connected(*_: object) -> Iterator[object]:
        yield site.site

    monkeypatch.setattr(site_run, "cluster_of", lambda *_: site.cluster)
    monkeypatch.setattr(site_run, "connected", connected)
    options = Options(
        inventory=Path("i"),
        cluster_file=None,
        through=None,
        rounds=1,
        seconds=3.0,
        per_s=40.0,
        loads=True,
        disrupt=disrupt,
        after_s=10.0,
        seed=1,
        arms=arms,
    )
    return run_site(options, folder, site.said.append)


@pytest.mark.usefixtures("soon")
def test_a_run_says_what_was_measured_and_what_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with DeployedSite(tmp_path) as site:
        found = run(site, tmp_path, monkeypatch, "random")
        assert site.units == {"node1": set(), "node2": set()}
    assert [arm["name"] for arm in found["arms"]] == ["cache_aware (deployed)", "random"]
    assert {one["point"] for one in found["verdicts"] if one["claimed"]} == {"locality", "spread", "hits", "hot"}
    locality = next(one for one in found["verdicts"] if one["claimed"] and one["point"] == "locality")
    assert locality["ok"] is True
    notes = " ".join(found["notes"])
    assert "NOT JUDGED: overhead" in notes
    assert "NOT RUN: disruption" in notes
    found["failures"] = [{"arm": "random", "what": "loads", "error": "it fell"}]
    spread = next(one for one in found["verdicts"] if one["claimed"] and one["point"] == "spread")
    spread |= {"ok": None, "said": "NOT JUDGED: too few"}
    text = report.markdown([found])
    assert "NOT JUDGED: cache_aware (deployed), spread: too few." in text
    assert "FAILED: random, loads: it fell." in text
    assert "| 2 | 1 | cache_aware (deployed) | 100.0% ok | 100.0% |" in text
    assert "| random | conversations |" in text
    assert "site test, profile router, m on cpu, each with 400 KV blocks of 16 tokens, through the router" in text
    page = report.into(PAGE.format(MARK), text, sites=report.of_sites([found]))
    assert "\n\nmocked\n\n" in page
    assert "\n\nold\n\n" not in page
    assert page.count("cache_aware (deployed)") == text.count("cache_aware (deployed)")
    assert record.passed([one for one in found["verdicts"] if one["point"] == "locality"])


def test_a_page_without_the_marks_and_runs_of_both_kinds_are_refused() -> None:
    with pytest.raises(BenchError, match="no lines <!-- kvstrata bench routing -i"):
        report.into(PAGE.format(""), "text", sites=True)
    with pytest.raises(BenchError, match="one kind at a time"):
        report.of_sites([{"target": {"kind": "site"}}, {"target": {"kind": "mocker"}}])


def test_an_arm_of_another_profile_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        DeployedSite(tmp_path) as site,
        pytest.raises(BenchError, match="dynamo-kv; allowed on this site: round_robin"),
    ):
        run(site, tmp_path, monkeypatch, "dynamo-kv")


def test_disruption_without_events_is_refused_before_anything_is_disturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with DeployedSite(tmp_path, events=False) as site:
        with pytest.raises(BenchError, match="--disrupt needs engines that tell KV events"):
            run(site, tmp_path, monkeypatch, disrupt=True)
        assert not any("kill" in line or "restart" in line for line in site.shells["node1"].ran)


def test_a_site_that_cannot_be_described_is_an_error(tmp_path: Path) -> None:
    options = Options(None, None, None, 1, 1.0, None, True, False, 10.0, 1, None)
    with pytest.raises(BenchError, match="either --inventory or --cluster"):
        run_site(options, tmp_path, print)
