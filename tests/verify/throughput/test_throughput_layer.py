"""The throughput layer on fake engines behind a fake router."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kvstrata.cluster import parse
from kvstrata.verify import throughput
from kvstrata.verify.check import Check, Status
from kvstrata.verify.context import NodeContext, SiteContext
from kvstrata.verify.document import Measured
from kvstrata.verify.throughput import baseline, judge
from tests.verify.fakes import documents
from tests.verify.fakes.replicas import FakeServing, by_prefix
from tests.verify.fakes.shell import FakeShell

ROUTER = ("10.9.0.11", 9000)
SETTINGS = {"concurrency": 4, "requests": 8, "prompt_tokens": 64, "output_tokens": 5}


@pytest.fixture(autouse=True)
def never_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """These loads are over at once, and engines, router and sender are one process."""
    monkeypatch.setattr(judge, "BUSY_SHARE", 1000.0)


class Run:
    """One run of the layer over two engines."""

    def __init__(self, folder: Path, settings: dict[str, Any] | None = None, **change: Any) -> None:
        self.serving = change.pop("serving", None) or FakeServing(2, by_prefix())
        document = documents.cluster(folder, 2)
        document["verify"]["throughput"] = SETTINGS | (settings or {})
        document["model"] |= change.pop("model", {})
        cluster = parse(document)
        addresses = [(engine.host, engine.port) for engine in cluster.engines]
        shell = FakeShell(ports=dict(self.serving.ports(addresses, ROUTER)))
        contexts = {
            node.name: NodeContext(cluster, node, shell, None, 5)
            for node in cluster.nodes
            if not change.get("without_router") or node.router is None
        }
        self.tables: Measured = {}
        site = SiteContext(
            cluster,
            contexts,
            change.get("earlier", []),
            lambda text: None,
            5,
            change.get("seed", "seed"),
            change.get("save", False),
            self.tables,
        )
        with self.serving:
            self.checks: dict[str, Check] = {check.id: check for check in throughput.checks(site)}

    @property
    def statuses(self) -> dict[str, str]:
        return {check_id.partition(".")[2]: check.status.value for check_id, check in self.checks.items()}


def test_a_load_without_bounds_and_baseline_is_measured_and_says_that_nothing_was_judged(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.statuses == {"requests": "pass", "measured": "pass"}
    measured = run.checks["throughput.measured"]
    assert measured.seen.endswith("; nothing was judged: the inventory has no bounds and the site no baseline")
    assert measured.data["answered"] == 8
    assert len(run.tables["throughput"]) == 8
    for row in run.tables["throughput"]:
        assert row["output_tokens"] == 5
        assert isinstance(row["gaps_us"], list)
        assert len(row["gaps_us"]) == 4
    assert not (tmp_path / baseline.FILE).exists()


def test_every_prompt_is_new_and_of_the_length_asked_for(tmp_path: Path) -> None:
    serving = FakeServing(2, by_prefix())
    Run(tmp_path, serving=serving)
    again = FakeServing(2, by_prefix())
    Run(tmp_path, serving=again, seed="another")
    starts = [tuple(body["prompt"].split()[:4]) for body in (*serving.asked, *again.asked)]
    assert len(set(starts)) == 16
    assert all(60 <= len(body["prompt"].split()) <= 72 for body in serving.asked)


def test_as_many_requests_run_at_a_time_as_stated_and_no_more(tmp_path: Path) -> None:
    serving = FakeServing(2, by_prefix())
    full = threading.Barrier(24, timeout=5)
    lock, now, most = threading.Lock(), [0], [0]

    def meanwhile() -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        full.wait()
        with lock:
            now[0] -= 1

    serving.meanwhile = meanwhile
    # More than an HTTP client's pool would hold by itself.
    run = Run(tmp_path, {"concurrency": 24, "requests": 48}, serving=serving)
    assert run.statuses["requests"] == "pass"
    assert most[0] == 24


def test_one_failed_request_fails_and_nothing_is_judged_of_the_rest(tmp_path: Path) -> None:
    serving = FakeServing(2, by_prefix())
    serving.failing = 1
    run = Run(tmp_path, {"max_ttft_p50_s": 0.000001}, serving=serving)
    assert run.statuses == {"requests": "fail", "measured": "skip", "ttft_p50_s": "skip"}
    assert "7 of 8 answered to their end; 1 failed: POST 10.9.0.11:9000/v1/completions answered 503" in (
        run.checks["throughput.requests"].seen
    )
    assert [row["error"] is None for row in run.tables["throughput"]].count(False) == 1


def test_an_answer_of_fewer_tokens_is_a_failed_request(tmp_path: Path) -> None:
    serving = FakeServing(2, by_prefix())
    whole = serving.completions
    serving.router.routes["/v1/completions"] = lambda body: whole(body | {"max_tokens": 3})
    run = Run(tmp_path, serving=serving)
    assert "8 failed: 3 tokens came, asked for were 5" in run.checks["throughput.requests"].seen


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        (
            {"min_output_tokens_per_s": 0.001, "max_itl_p95_s": 60.0},
            {"output_tokens_per_s": "pass", "itl_p95_s": "pass"},
        ),
        ({"min_output_tokens_per_s": 1e9}, {"output_tokens_per_s": "fail"}),
        ({"max_ttft_p50_s": 1e-6, "max_ttft_p99_s": 60.0}, {"ttft_p50_s": "fail", "ttft_p99_s": "pass"}),
    ],
)
def test_each_bound_of_the_inventory_is_a_check_of_its_own(
    tmp_path: Path, bounds: dict[str, float], expected: dict[str, str]
) -> None:
    run = Run(tmp_path, bounds)
    assert run.statuses == {"requests": "pass", "measured": "pass"} | expected
    assert "nothing was judged" not in run.checks["throughput.measured"].seen


def test_a_baseline_is_kept_only_when_asked_for_and_then_compared(tmp_path: Path) -> None:
    kept = Run(tmp_path, save=True)
    assert kept.checks["throughput.baseline"].seen == "kept as the site's baseline"
    run = Run(tmp_path, {"tolerance": 1000.0})
    assert run.statuses == {"requests": "pass", "measured": "pass", "baseline": "pass"}
    again = Run(tmp_path, save=True)
    assert "instead of that of 20" in again.checks["throughput.baseline"].seen


def test_a_site_that_became_slow_fails_against_its_baseline(tmp_path: Path) -> None:
    Run(tmp_path, save=True)
    folder = tmp_path / baseline.FILE
    kept = baseline.load(tmp_path)
    assert kept is not None
    rate = kept.figures.output_tokens_per_s
    folder.write_text(folder.read_text().replace(f'"output_tokens_per_s": {rate}', '"output_tokens_per_s": 1e9'))
    run = Run(tmp_path)
    assert run.statuses["baseline"] == "fail"
    assert "output_tokens_per_s" in run.checks["throughput.baseline"].seen


@pytest.mark.parametrize(
    ("settings", "model", "why"),
    [
        ({"concurrency": 2}, {}, "concurrency 2, was 4"),
        ({"output_tokens": 6}, {}, "output_tokens 6, was 5"),
        ({}, {"name": "other"}, "model other, was m"),
        ({}, {"revision": "two"}, "revision two, was"),
    ],
)
def test_a_baseline_of_other_conditions_is_not_compared_and_says_why(
    tmp_path: Path, settings: dict[str, int], model: dict[str, str], why: str
) -> None:
    Run(tmp_path, save=True)
    check = Run(tmp_path, settings, model=model).checks["throughput.baseline"]
    assert check.status is Status.SKIP
    assert why in check.seen


def test_failed_requests_keep_no_baseline(tmp_path: Path) -> None:
    serving = FakeServing(2, by_prefix())
    serving.failing = 1
    run = Run(tmp_path, serving=serving, save=True)
    assert run.statuses["baseline"] == "skip"
    assert baseline.load(tmp_path) is None


def test_a_baseline_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    run = Run(tmp_path / "file" / "below", save=True)
    assert run.statuses["baseline"] == "error"


def test_no_request_begins_after_the_time_is_up_and_those_under_way_are_cut_off(tmp_path: Path) -> None:
    serving = FakeServing(2, by_prefix())
    # Longer than the time allows: nobody waits for it.
    never = threading.Event()
    serving.gap = lambda: never.wait(0.4)
    run = Run(tmp_path, {"max_s": 0.5, "concurrency": 2, "max_ttft_p50_s": 9.0}, serving=serving)
    assert run.statuses == {"requests": "error", "measured": "skip", "ttft_p50_s": "skip"}
    assert "only 0 of 8 answered to their end; 2 were cut off and 6 not begun when 0.5 s were over" in (
        run.checks["throughput.requests"].seen
    )
    assert [row["cut"] for row in run.tables["throughput"]] == [True, True]


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda folder: Run(folder, {"enabled": False}), "kvstrata_verify_throughput.enabled is false"),
        (lambda folder: Run(folder, without_router=True), "no router was reached"),
    ],
)
def test_a_load_that_is_not_made_is_a_skip_that_says_what_is_not_proven(
    tmp_path: Path, make: Callable[[Path], Run], why: str
) -> None:
    run = make(tmp_path)
    assert run.statuses == {"requests": "skip"}
    assert why in run.checks["throughput.requests"].seen
    assert "is not proven" in run.checks["throughput.requests"].seen
    assert run.serving.asked == []
