"""What changed between two runs: real documents of the fake site, and made ones where that says more."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable

import pytest

from kvstrata.cluster import TiersPolicy
from kvstrata.verify.changes import lines
from kvstrata.verify.check import Layer
from kvstrata.verify.compare import Differences, Kind, compare
from kvstrata.verify.document import CheckRow, Document, StatusName
from kvstrata.verify.result import could_not_check
from tests.verify.fakes.site import Code, Site
from tests.verify.test_verify_run import run


def told(differences: Differences) -> list[tuple[str, str, str]]:
    return [(change.kind.value, change.id, change.host) for change in differences.checks]


def text(differences: Differences) -> str:
    return "\n".join(lines(differences))


def row(check_id: str, status: StatusName = "pass", host: str = "n1", what: str = "what") -> CheckRow:
    return {
        "id": check_id,
        "layer": check_id.partition(".")[0],
        "host": host,
        "what": what,
        "expected": "",
        "seen": f"seen {status}",
        "status": status,
        "hint": "",
        "duration_s": 0.0,
        "data": {},
    }


def made(*checks: CheckRow, nodes: tuple[str, ...] = ("n1", "n2")) -> Document:
    document = could_not_check("x", "why")
    document["site"], document["nodes"] = "s", list(nodes)
    document["checks"] = list(checks)
    return document


@pytest.fixture
def proven(site: Site) -> Document:
    return run(site, policy=TiersPolicy.ALWAYS).as_json()


def with_times(document: Document, change: Callable[[float], float]) -> Document:
    other = copy.deepcopy(document)
    assert other["tiers"] is not None
    other["tiers"]["proven_at"] = "another time"
    for step in other["tiers"]["steps"]:
        step["ttft_s"] = change(step["ttft_s"])
    return other


# -- checks ----------------------------------------------------------------------------------------


def test_two_runs_of_the_same_site_do_not_differ(site: Site) -> None:
    differences = compare(run(site).as_json(), run(site).as_json())
    assert not differences.any
    assert not differences.worse
    assert "nothing" in text(differences)


def test_a_run_does_not_differ_from_itself(proven: Document) -> None:
    differences = compare(proven, proven, 0)
    assert (differences.any, differences.remarks) == (False, ())


def test_another_seed_is_no_change(site: Site, proven: Document) -> None:
    other = json.loads(json.dumps(proven).replace("seed-1", "seed-2"))
    assert compare(proven, other).checks == ()


def test_a_check_that_newly_fails_and_one_that_newly_passes_are_told_with_what_was_seen(site: Site) -> None:
    good = run(site).as_json()
    site.document["nodes"][0]["lmcache"]["chunk_size"] = 128
    bad = run(site).as_json()
    worse, better = compare(good, bad), compare(bad, good)
    assert told(worse) == [("newly fails", "cache.chunk", "node1")]
    assert worse.worse
    assert "newly fails: node1: LMCache chunk size" in text(worse)
    assert "pass -> fail: 256 tokens" in text(worse)
    assert told(better) == [("newly passes", "cache.chunk", "node1")]
    assert not better.worse


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ("pass", "fail", Kind.FAILS),
        ("pass", "error", Kind.FAILS),
        ("skip", "fail", Kind.FAILS),
        ("fail", "error", Kind.STILL),
        ("error", "fail", Kind.STILL),
        ("fail", "skip", Kind.UNCHECKED),
        ("pass", "skip", Kind.UNCHECKED),
        ("fail", "pass", Kind.PASSES),
        ("error", "pass", Kind.PASSES),
        ("skip", "pass", Kind.PASSES),
    ],
)
def test_every_turn_has_its_kind(before: StatusName, after: StatusName, kind: Kind) -> None:
    (change,) = compare(made(row("store.auth", before)), made(row("store.auth", after))).checks
    assert (change.kind, change.before, change.after) == (kind, before, after)


def test_checks_appear_and_vanish(site: Site) -> None:
    old = made(row("store.auth", what="d0"), row("store.auth", what="d1"))
    new = made(row("store.auth", what="d0"), row("store.auth", what="d2"), row("store.auth", "fail", what="d3"))
    found = compare(old, new).checks
    # The worst first.
    assert [(change.kind, change.what) for change in found] == [
        (Kind.FAILS, "d3"),
        (Kind.VANISHED, "d1"),
        (Kind.APPEARED, "d2"),
    ]


def test_checks_of_the_same_name_are_told_apart_by_their_order() -> None:
    old = made(row("store.auth"), row("store.auth"))
    new = made(row("store.auth"), row("store.auth", "fail"))
    assert told(compare(old, new)) == [("newly fails", "store.auth", "n1")]


# -- what only one run looked at -------------------------------------------------------------------


def test_a_layer_that_was_left_out_has_not_vanished(site: Site) -> None:
    whole, part = run(site).as_json(), run(site, only=Layer.ENGINE).as_json()
    for differences in (compare(whole, part), compare(part, whole)):
        assert differences.checks == ()
        assert not differences.any
    assert "only before: test: store checks: NOT CHECKED: --only engine" in compare(whole, part).remarks
    assert "only now: test: store checks: NOT CHECKED: --only engine" in compare(part, whole).remarks


def test_nodes_that_were_left_out_are_told_once_and_not_check_by_check(site: Site) -> None:
    whole, part = run(site).as_json(), run(site, limit=("node1",)).as_json()
    differences = compare(whole, part)
    assert differences.nodes_gone == ("node2",)
    # Without its neighbour nobody looks from outside.
    assert {change.id for change in differences.checks} <= {"host.link", "store.fabric", "cache.closed"}
    assert compare(part, whole).nodes_added == ("node2",)


def test_a_node_that_is_not_reached_is_one_change(site: Site) -> None:
    good = run(site).as_json()
    site.nodes["node2"].shell.unreachable = "no answer"
    bad = run(site).as_json()
    differences = compare(good, bad)
    assert [one for one in told(differences) if one[2] == "node2"] == [("newly fails", "host.ssh", "node2")]
    assert not [remark for remark in differences.remarks if "node2" in remark]
    assert [one for one in told(compare(bad, good)) if one[2] == "node2"] == [("newly passes", "host.ssh", "node2")]


def test_a_failure_that_is_not_looked_at_any_more_is_no_good_news(site: Site) -> None:
    site.engine["node1"].routes["/health"] = lambda body: Code(503)
    whole, part = run(site).as_json(), run(site, only=Layer.STORE).as_json()
    (change,) = compare(whole, part).checks
    assert (change.kind, change.id, change.before, change.after) == (Kind.UNCHECKED, "engine.health", "fail", None)


def test_a_layer_that_was_not_done_in_time_is_an_error_and_its_checks_have_not_vanished() -> None:
    old = made(row("store.auth"), row("store.dir"))
    new = made(row("store.deadline", "error", what="store checks"))
    assert told(compare(old, new)) == [("newly fails", "store.deadline", "n1")]
    assert told(compare(new, old)) == [("vanished", "store.deadline", "n1")]


def test_a_proof_that_ran_once_and_still_holds_is_no_change(site: Site, proven: Document) -> None:
    later = run(site, policy=TiersPolicy.IF_CHANGED).as_json()
    assert later["tiers"] is not None
    assert not later["tiers"]["ran"]
    for differences in (compare(proven, later), compare(later, proven)):
        assert not differences.any
        assert differences.remarks == ()


def test_a_proof_on_other_nodes_is_no_check_that_vanished() -> None:
    old, new = made(row("tiers.cold", host="n1")), made(row("tiers.cold", host="n2"))
    for document in (old, new):
        document["tiers"] = {"ran": True, "proven_at": None, "seed": "a", "fingerprint": None, "steps": []}
    assert not compare(old, new).any


# -- times and versions ----------------------------------------------------------------------------


def test_a_time_beyond_the_tolerance_is_told_in_either_direction(proven: Document) -> None:
    slower = compare(proven, with_times(proven, lambda s: s * 1.3), 0.25)
    assert [round(change.ratio, 2) for change in slower.times] == [1.3, 1.3, 1.3]
    assert slower.worse
    assert "1.30x as long" in text(slower)
    faster = compare(proven, with_times(proven, lambda s: s / 2), 0.25)
    assert [change.step for change in faster.times] == ["cold", "after restart", "other node"]
    assert not faster.worse
    assert "2.00x faster" in text(faster)


def test_a_time_within_the_tolerance_is_no_change(proven: Document) -> None:
    assert compare(proven, with_times(proven, lambda s: s * 1.2), 0.25).times == ()
    assert compare(proven, with_times(proven, lambda s: s / 1.2), 0.25).times == ()
    assert len(compare(proven, with_times(proven, lambda s: s * 1.2), 0.1).times) == 3


def test_times_of_prompts_of_another_length_are_not_compared_and_that_is_said(proven: Document) -> None:
    other = with_times(proven, lambda s: s * 9)
    assert other["tiers"] is not None
    other["tiers"]["steps"][0]["prompt_tokens"] *= 2
    differences = compare(proven, other)
    assert [change.step for change in differences.times] == ["after restart", "other node"]
    assert differences.remarks[0].startswith("time to first token, cold: not compared, the prompt had ")


def test_lengths_are_judged_the_same_way_round_and_back(proven: Document) -> None:
    other = with_times(proven, lambda s: s * 9)
    for document, tokens in ((proven, 1000), (other, 1051)):
        assert document["tiers"] is not None
        document["tiers"]["steps"][0]["prompt_tokens"] = tokens
    assert len(compare(proven, other).times) == len(compare(other, proven).times) == 3


def test_a_time_of_zero_is_not_divided_by(proven: Document) -> None:
    assert compare(proven, with_times(proven, lambda s: 0.0)).times == ()
    assert compare(with_times(proven, lambda s: 0.0), proven).times == ()


def test_versions_that_changed_are_told_by_host_and_grouped_for_people(proven: Document) -> None:
    other = json.loads(json.dumps(proven).replace('"version": "0.31.0"', '"version": "0.32.0"'))
    other["versions"]["kvstrata"] = "9.9"
    for found in other["versions"]["found"]:
        if "kernel" in found:
            found["kernel"] = "7.0"
            del found["release"]
    differences = compare(proven, other)
    assert not differences.worse
    assert ("node2", "version", "0.31.0", "0.32.0") in [
        (change.host, change.name, change.before, change.after) for change in differences.versions
    ]
    shown = text(differences)
    assert "vllm@0.service version: 0.31.0 -> 0.32.0 on node1, node2" in shown
    assert "kvstrata version: " in shown
    assert "-> 9.9 on controller" in shown
    assert "-> 7.0 on node1, node2" in shown


def test_the_differences_are_json_too(proven: Document) -> None:
    document = json.loads(json.dumps(compare(proven, with_times(proven, lambda s: s * 2)).as_json()))
    assert document["worse"] is True
    assert document["times"][0]["ratio"] == 2


def test_an_inventory_that_could_not_be_described_can_be_compared(proven: Document) -> None:
    broken = could_not_check("x", "why")
    assert ("newly fails", "inventory", "controller") in told(compare(proven, broken))
    assert compare(broken, proven).worse is False
