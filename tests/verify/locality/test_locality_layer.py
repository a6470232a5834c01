"""router.locality before fake engines that keep prefixes: a router without affinity is named, others are not."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kvstrata.cluster import parse
from kvstrata.verify import locality
from kvstrata.verify.check import Check, Status
from kvstrata.verify.context import NodeContext, SiteContext
from kvstrata.verify.document import Measured
from kvstrata.verify.locality import layer, replicas
from tests.verify.fakes import documents
from tests.verify.fakes.replicas import (
    FakeServing,
    Policy,
    always,
    by_prefix,
    by_user_or,
    least_loaded,
    never_where_it_was,
    round_robin,
)
from tests.verify.fakes.shell import FakeShell

ROUTER = ("10.9.0.11", 9000)


def context(serving: FakeServing, limit: int | None = None) -> SiteContext:
    document = documents.cluster(Path("/state"), len(serving.engines))
    cluster = parse(document)
    addresses = [(engine.host, engine.port) for engine in cluster.engines]
    shell = FakeShell(ports=dict(serving.ports(addresses, ROUTER)))
    nodes = cluster.nodes[:limit]
    contexts = {node.name: NodeContext(cluster, node, shell, None, 5) for node in nodes}
    tables: Measured = {}
    return SiteContext(cluster, contexts, [], lambda text: None, 5, "seed", tables=tables)


def ask(serving: FakeServing, limit: int | None = None) -> tuple[Check, list[dict[str, Any]]]:
    with serving:
        site = context(serving, limit)
        (check,) = locality.checks(site)
    assert (check.id, check.host) == ("router.locality", "node1")
    return check, list(site.tables.get("locality", []))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer, "ENOUGH_S", 60.0)
    monkeypatch.setattr(replicas, "SETTLE_S", 0.1)
    monkeypatch.setattr(replicas, "POLL_S", 0.01)


@pytest.mark.parametrize("engines", [2, 3, 9, 20])
def test_a_router_that_follows_conversations_passes(engines: int) -> None:
    check, rows = ask(FakeServing(engines, by_prefix()))
    assert check.status is Status.PASS, check.seen
    assert check.data["warm_turns"] == check.data["follow_up_turns"]
    assert all(row["local_tokens"] > 200 for row in rows if row["expected"] is not None)
    assert len(rows) == 4 * min(engines + 1, 7)


@pytest.mark.parametrize("engines", [2, 3, 4, 8, 9, 20])
def test_a_router_that_goes_round_is_named(engines: int) -> None:
    check, _ = ask(FakeServing(engines, round_robin()))
    assert check.status is Status.FAIL


@pytest.mark.parametrize("seed", range(5))
def test_a_router_that_chooses_by_chance_is_named(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    check, _ = ask(FakeServing(2, lambda prompt, engines: chance.choice(engines)))
    assert check.status is Status.FAIL


def overlapping(serving: FakeServing, requests: int) -> FakeServing:
    """Let so many requests wait for each other, again and again, so that all are under way at the same time."""
    serving.meanwhile = threading.Barrier(requests, timeout=5).wait
    return serving


def test_a_router_that_only_looks_for_the_least_busy_replica_is_named() -> None:
    chance = random.Random(1)  # noqa: S311
    # Of two replicas it would find the right one by chance too often for a test.
    serving = overlapping(FakeServing(5, least_loaded(chance)), 6)
    check, rows = ask(serving)
    assert len({row["replica"] for row in rows if row["turn"] == 1}) == 5
    assert check.status is Status.FAIL


@pytest.mark.parametrize("other", [round_robin, never_where_it_was])
def test_a_router_that_follows_named_users_only_passes_and_the_report_says_so(other: Callable[[], Policy]) -> None:
    check, rows = ask(overlapping(FakeServing(2, by_user_or(other())), 3))
    assert check.status is Status.PASS, check.seen
    assert check.seen.startswith("only where requests name their `user`: 9 of 9 follow-up turns")
    assert {row["names_user"] for row in rows} == {False, True}


def test_a_router_that_uses_one_replica_only_passes_and_the_report_says_so() -> None:
    check, _ = ask(FakeServing(2, always(1)))
    assert check.status is Status.PASS
    assert check.seen.endswith("; 1 of 2 replicas took part")


def test_one_replica_is_a_skip_that_says_what_is_not_proven() -> None:
    check, rows = ask(FakeServing(1, always(0)))
    assert check.status is Status.SKIP
    assert check.seen.startswith("NOT CHECKED: that a conversation comes back to its replica is not proven")
    assert rows == []


@pytest.mark.parametrize("policy", [by_prefix, round_robin])
def test_a_busy_site_is_an_error_and_no_verdict(policy: Callable[[], Policy]) -> None:
    serving = FakeServing(2, policy())

    def busy() -> None:
        for engine in serving.engines:
            engine.serve("somebody else's prompt")
            engine.serve("and another one")

    serving.meanwhile = busy
    check, _ = ask(serving)
    assert check.status is Status.ERROR
    assert "could not be told from other traffic" in check.seen


def test_a_little_other_traffic_costs_some_turns_and_not_the_verdict() -> None:
    serving = FakeServing(2, by_prefix())
    count = [0]

    def now_and_then() -> None:
        count[0] += 1
        if count[0] == 2:
            for engine in serving.engines:
                engine.serve("somebody else's prompt")

    serving.meanwhile = now_and_then
    check, _ = ask(serving)
    assert check.status is Status.PASS, check.seen
    assert check.data["mixed_turns"] == 3


def test_replicas_whose_node_is_not_under_verification_are_read_through_the_routers_node() -> None:
    check, _ = ask(FakeServing(3, by_prefix()), limit=1)
    assert check.status is Status.PASS, check.seen


def test_an_engine_that_gives_no_metrics_is_an_error_that_names_it() -> None:
    serving = FakeServing(2, by_prefix())
    del serving.engines[1].web.routes["/metrics"]
    check, _ = ask(serving)
    assert check.status is Status.ERROR
    assert "node2 vllm@0.service gives no metrics" in check.seen


def test_a_router_that_refuses_a_turn_fails_with_what_it_said() -> None:
    serving = FakeServing(2, by_prefix())
    del serving.router.routes["/v1/chat/completions"]
    check, _ = ask(serving)
    assert check.status is Status.FAIL
    assert "/v1/chat/completions answered 404" in check.seen


def test_no_turn_begins_after_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer, "MOST_S", 0.0)
    check, rows = ask(FakeServing(2, by_prefix()))
    assert check.status is Status.ERROR
    assert len(rows) <= 3


def test_a_slow_site_is_asked_for_no_more_turns_than_a_verdict_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer, "ENOUGH_S", 0.0)
    check, rows = ask(FakeServing(2, by_prefix()))
    assert check.status is Status.PASS, check.seen
    assert len(rows) == 3 + 6


def test_a_site_whose_router_was_not_reached_has_no_row() -> None:
    with FakeServing(2, by_prefix()) as serving:
        site = context(serving)
        rest = {name: ctx for name, ctx in site.contexts.items() if name != "node1"}
        assert list(locality.checks(SiteContext(site.cluster, rest, [], site.say, 5, "seed"))) == []
