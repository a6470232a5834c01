"""What two clocks can tell of each other over a slow way."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from kvstrata.verify.check import Check, Status
from kvstrata.verify.layers import host
from kvstrata.verify.layers.host.clock import Bounds, bounds
from tests.verify.fakes.host import SURVEY
from tests.verify.fakes.site import Site


def ask(site: Site) -> Check:
    return next(check for check in host.checks(site.context()) if check.id == "host.clock")


def test_the_round_trip_is_taken_off() -> None:
    # Asked at 100, the node's clock began at 102 and ended at 103, and the answer came at 101.5.
    found = bounds(100.0, 102.0, 103.0, 101.5)
    # The node worked for one second of the one and a half: the way took half a second.
    assert (found.low, found.high) == (1.5, 2.0)
    assert (found.middle, found.half) == (1.75, 0.25)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(-0.4, 0.4, True), (0.6, 0.9, False), (-2, -0.6, False), (0.4, 0.6, None), (-9, 9, None)],
)
def test_a_verdict_is_given_only_where_the_bounds_allow_one(low: float, high: float, verdict: bool | None) -> None:
    assert Bounds(low, high).within(0.5) is verdict


def test_two_looks_tell_more_than_one_and_a_clock_that_was_set_starts_anew() -> None:
    assert Bounds(-1, 0.3).narrowed(Bounds(0.1, 2)) == Bounds(0.1, 0.3)
    assert Bounds(-1, 0).narrowed(Bounds(5, 6)) == Bounds(5, 6)


@pytest.mark.parametrize(("skew_s", "status"), [(0.2, Status.PASS), (0.8, Status.FAIL), (-0.8, Status.FAIL)])
def test_the_inventory_says_how_far_apart_clocks_may_be(site: Site, skew_s: float, status: Status) -> None:
    site.nodes["node1"].host.skew_s = skew_s
    check = ask(site)
    assert check.status is status
    assert check.data["skew_s"] == pytest.approx(skew_s, abs=0.05)
    site.document["verify"]["limits"] = {"clock_skew_s": 2}
    assert ask(site).status is Status.PASS


def slowly(site: Site, skew_s: float, way_s: float) -> None:
    """The survey's answer is on its way for so long that it could be of a node that is right or not."""
    node = site.nodes["node1"]

    def survey(argv: Sequence[str]) -> str:
        node.host.skew_s = skew_s - way_s
        text = node.host.survey(argv)
        # As if it had been asked earlier: the controller's clock cannot be waited for.
        return text.replace("@@ begin", f"@@ begin\n{time.time() + skew_s:.6f}\n@@ was", 1)

    node.shell.answers[SURVEY] = survey


def test_a_slow_way_is_asked_again_alone(site: Site) -> None:
    slowly(site, 0.0, 1.5)
    site.nodes["node1"].shell.answers["date +%s.%N"] = lambda argv: f"{time.time():.9f}\n"
    check = ask(site)
    assert check.status is Status.PASS, check.seen
    assert site.nodes["node1"].shell.ran.count("date +%s.%N") == 1


def test_what_stays_unclear_is_an_error_and_no_failure(site: Site) -> None:
    slowly(site, 0.0, 1.5)
    site.nodes["node1"].shell.answers["date +%s.%N"] = "yesterday"
    check = ask(site)
    assert check.status is Status.ERROR
    assert "`date` said 'yesterday'" in check.seen


@pytest.mark.parametrize(
    ("said", "container", "status", "seen"),
    [
        ("yes", "none", Status.PASS, "synchronised"),
        ("no", "none", Status.SKIP, "no time daemon keeps it"),
        ("yes", "podman", Status.SKIP, "that of the container's host (podman)"),
        ("Failed to connect to bus", "none", Status.SKIP, "`timedatectl` said"),
    ],
)
def test_whether_a_daemon_keeps_the_clock_is_told_and_never_failed(
    site: Site, said: str, container: str, status: Status, seen: str
) -> None:
    site.nodes["node1"].host.parts |= {"clock": said, "container": container}
    check = [check for check in host.checks(site.context()) if check.id == "host.clock"][1]
    assert check.status is status
    assert seen in check.seen
