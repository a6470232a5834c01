"""One fault is named once: what follows from it proves nothing, and says so."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from kvstrata.cluster import Cluster, parse
from kvstrata.verify.causes import RULES, with_causes
from kvstrata.verify.check import Check, Layer, Status
from tests.verify.fakes import documents


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return parse(documents.cluster(tmp_path, nodes=2))


def check(check_id: str, host: str, what: str, status: Status = Status.FAIL, seen: str = "wrong") -> Check:
    return Check(check_id, Layer(check_id.partition(".")[0]), host, what, "right", seen, status, "look")


MOUNT = check("host.mount", "node1", "/drives/d0")
STORE_UNIT = check("host.unit", "node1", "kvrocks@d0.service")
ENGINE_UNIT = check("host.unit", "node2", "vllm@0.service")
ROUNDTRIP = check("store.roundtrip", "node1", "d0 10.9.0.11:6666 round trip")
OTHER_ROUNDTRIP = check("store.roundtrip", "node2", "d0 10.9.0.12:6666 round trip")
BREAKER = check("cache.breaker", "node2", "breaker towards 10.9.0.11:6666")
WORKERS = check("router.workers", "node1", "engines behind the router", seen="unhealthy http://10.9.0.12:8000")


@pytest.mark.parametrize(
    ("cause", "effect"),
    [
        (MOUNT, ROUNDTRIP),
        (MOUNT, STORE_UNIT),
        (check("host.driver", "node2", "driver"), ENGINE_UNIT),
        (check("host.link", "node2", "link from node1"), check("cache.adapter", "node1", "one chunk")),
        (STORE_UNIT, ROUNDTRIP),
        (STORE_UNIT, BREAKER),
        (ENGINE_UNIT, WORKERS),
        (ENGINE_UNIT, check("engine.health", "node2", "vllm@0.service 10.9.0.12:8000 health")),
        (check("store.capacity", "node1", "d0 10.9.0.11:6666 space"), ROUNDTRIP),
        (check("engine.connector", "node2", "vllm@0.service connector"), check("cache.engines", "node2", "engines")),
        (check("router.health", "node1", "router"), check("throughput.requests", "test", "requests")),
    ],
)
def test_what_follows_from_a_failed_check_names_it_and_keeps_what_was_seen(
    cluster: Cluster, cause: Check, effect: Check
) -> None:
    named, followed = with_causes(cluster, [cause, effect])
    assert named is cause
    assert followed.status is Status.SKIP
    assert followed.seen.startswith(f"NOT CHECKED: follows from {cause.id} on {cause.host} ({cause.what})")
    assert followed.seen.endswith(effect.seen)


@pytest.mark.parametrize(
    ("cause", "other"),
    [
        (STORE_UNIT, OTHER_ROUNDTRIP),
        (check("host.driver", "node1", "driver"), STORE_UNIT),
        (STORE_UNIT, check("cache.breaker", "node2", "breaker towards 10.9.0.12:6666")),
        (ENGINE_UNIT, check("engine.health", "node1", "vllm@0.service 10.9.0.11:8000 health")),
        (ENGINE_UNIT, check("engine.health", "node2", "vllm@1.service 10.9.0.12:8001 health")),
        (check("cache.health", "node1", "LMCache health"), check("cache.chunk", "node2", "chunk size")),
        (ENGINE_UNIT, check("cache.health", "node2", "LMCache health")),
    ],
)
def test_another_fault_stays_a_fault(cluster: Cluster, cause: Check, other: Check) -> None:
    assert with_causes(cluster, [cause, other]) == [cause, other]


def test_what_passed_or_could_not_be_looked_at_explains_nothing(cluster: Cluster) -> None:
    for status in (Status.PASS, Status.SKIP, Status.ERROR):
        cause = check("host.mount", "node1", "/drives/d0", status)
        assert with_causes(cluster, [cause, ROUNDTRIP]) == [cause, ROUNDTRIP]


def test_a_node_out_of_reach_explains_what_others_see_of_it(cluster: Cluster) -> None:
    gone = check("host.ssh", "node2", "SSH", Status.ERROR)
    assert with_causes(cluster, [gone, WORKERS])[1].status is Status.SKIP


def test_no_two_kinds_of_check_explain_each_other() -> None:
    """Else two broken checks could both be explained away, and nothing would be named."""
    ids = {rule.cause for rule in RULES}

    def explains(cause: str, effect: str) -> bool:
        return any(
            rule.cause == cause
            and any(effect == p or (p.endswith("*") and effect.startswith(p[:-1])) for p in rule.effects)
            for rule in RULES
        )

    reach = {(a, b) for a, b in itertools.product(ids, ids) if a != b and explains(a, b)}
    for _ in ids:
        reach |= {(a, d) for a, b in reach for c, d in reach if b == c}
    assert [(a, b) for a, b in reach if a != b and (b, a) in reach] == []
