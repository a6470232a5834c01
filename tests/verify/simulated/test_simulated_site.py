"""A site of 200 nodes: how long it takes to verify it, and that silent nodes cost the others nothing."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from kvstrata.cluster import TiersPolicy
from kvstrata.verify import runner
from kvstrata.verify.check import Check, Group, Layer, Status
from kvstrata.verify.result import Result
from kvstrata.verify.ssh import SshShell
from kvstrata.verify.tiers.layer import TiersOptions
from tests.verify.simulated.cluster import SimulatedCluster
from tests.verify.simulated.undisturbed import Stopwatch

NODES = 200
MOST_S = 60.0
# Where other programs take more than this, the limits of single steps are no verdict on the nodes.
DISTURBED_SHARE = 0.5
SILENT = ("node7", "node50", "node99", "node150", "node200")
HANGING = ("node8", "node100", "node151")


class Quiet:
    """Progress that nobody looks at."""

    def begin(self, nodes: Sequence[str], layers: Sequence[Layer]) -> None:
        pass

    def group(self, group: Group) -> None:
        pass

    def step(self, text: str) -> None:
        pass


def verified(cluster: SimulatedCluster, timeout_s: float, only: frozenset[Layer] | None = None) -> Result:
    shells = {node.name: SshShell(node.ssh) for node in cluster.cluster.nodes}
    selection = runner.Selection(TiersOptions(TiersPolicy.IF_CHANGED, "seed"), only)
    try:
        return runner.verify(cluster.cluster, shells, selection, timeout_s, Quiet())
    finally:
        for shell in shells.values():
            shell.close()


def bad(result: Result) -> list[tuple[str, str, str]]:
    return [(check.host, check.id, check.seen) for check in result.checks if check.bad]


def of(result: Result, host: str) -> list[Check]:
    return [check for check in result.checks if check.host == host]


@pytest.mark.timeout(900)
def test_two_hundred_nodes_are_verified_within_a_minute(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = SimulatedCluster(tmp_path, NODES, own_process=True)
    with cluster:
        cpu_before = time.process_time()
        with Stopwatch() as watch:
            # Far more than it takes: on a machine that others use, time is no verdict on a check.
            result = verified(cluster, timeout_s=600)
        cpu_s = time.process_time() - cpu_before
    assert cluster.ended is not None
    own_s = cpu_s + cluster.ended.cpu_s
    # No machine makes one interpreter's work quicker than it is.
    took, others = max(cpu_s, watch.undisturbed_s(own_s)), watch.others(own_s)
    told = (
        f"{NODES} simulated nodes: {len(result.checks)} checks in {watch.wall_s:.1f} s, of an idle machine "
        f"{took:.1f} s; processor time {cpu_s:.1f} s for verify, {cluster.ended.cpu_s:.1f} s for the nodes; "
        f"others took {others:.0%}"
    )
    with capsys.disabled():
        sys.stdout.write(f"\n{told}\n")
    assert cluster.ended.unknown == ()
    if others > DISTURBED_SHARE and (bad(result) or took >= MOST_S):
        pytest.skip(f"not proven that {NODES} nodes are verified within {MOST_S:g} s: {told}")
    assert bad(result) == []
    assert [check.id for check in result.checks if check.status is Status.SKIP] == ["faults.all"]
    by_host = Counter(check.host for check in result.checks)
    assert all(by_host[node.name] > 20 for node in cluster.cluster.nodes)
    assert result.tiers.proven_at is not None
    assert took < MOST_S


@pytest.mark.timeout(300)
def test_silent_nodes_among_two_hundred_are_named_and_cost_the_others_nothing(tmp_path: Path) -> None:
    cluster = SimulatedCluster(tmp_path, NODES, own_process=True)
    for name in SILENT:
        cluster.site.nodes[name].silent = True
    for name in HANGING:
        cluster.site.nodes[name].hangs = "systemctl show"
    with cluster:
        cpu_before = time.process_time()
        with Stopwatch() as watch:
            result = verified(cluster, timeout_s=30, only=frozenset({Layer.HOST}))
        cpu_s = time.process_time() - cpu_before
    assert cluster.ended is not None
    # Login waits 10 s for a silent node, the layers 30 s for one that hangs.
    own_s = cpu_s + cluster.ended.cpu_s
    assert watch.undisturbed_s(own_s) < MOST_S
    if watch.others(own_s) > DISTURBED_SHARE and len(bad(result)) > len(SILENT) + len(HANGING) * 8:
        pytest.skip("not proven that silent nodes cost the others nothing: other programs took most of the processors")
    assert {host for host, _, _ in bad(result)} == {*SILENT, *HANGING}
    for name in SILENT:
        assert [(check.id, check.status) for check in of(result, name)] == [("host.ssh", Status.ERROR)]
    for name in HANGING:
        assert {check.status for check in of(result, name) if check.bad} == {Status.ERROR}
    well = [node.name for node in cluster.cluster.nodes if node.name not in (*SILENT, *HANGING)]
    assert all(len(of(result, name)) > 8 for name in well)
