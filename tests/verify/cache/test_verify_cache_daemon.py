"""The cache daemon: health, chunks, DRAM tier, engines, and who reaches it. One fault, one failure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kvstrata.verify.check import Check, Status
from kvstrata.verify.layers import cache
from kvstrata.verify.shell import Reach
from tests.verify.fakes.documents import l1, l2_adapter
from tests.verify.fakes.site import Site


def checks(site: Site) -> list[Check]:
    return list(cache.checks(site.context()))


def ask(site: Site, check_id: str) -> Check:
    return next(check for check in checks(site) if check.id == check_id)


def failing(site: Site, check_id: str) -> Check:
    """The check, when it is the only one that fails."""
    found = checks(site)
    assert [check.id for check in found if check.bad] == [check_id]
    return next(check for check in found if check.id == check_id)


def status_with(**changes: Any) -> Callable[[dict[str, Any]], object]:
    good: dict[str, Any] = {
        "is_healthy": True,
        "chunk_size": 256,
        "storage_manager": {"l2_adapters": [l2_adapter()], **l1()},
        "registered_gpu_ids": [1],
    }
    return lambda body: good | changes


def test_everything_passes_on_a_good_daemon(site: Site) -> None:
    found = checks(site)
    assert [check.status for check in found] == [Status.PASS] * len(found), found
    assert {check.id.partition(".")[2] for check in found} == {
        *("health", "breaker", "l2", "adapter", "chunk", "identity", "tier", "engines", "closed")
    }


def test_a_daemon_that_does_not_answer_fails_once_with_the_reason(site: Site) -> None:
    del site.nodes["node1"].shell.ports["127.0.0.1", 8090]
    check = failing(site, "cache.health")
    assert check.seen == "GET 127.0.0.1:8090/status: Connection refused"
    followed = ask(site, "cache.identity")
    assert followed.seen == "NOT CHECKED: follows from cache.health on node1 (LMCache health)"
    assert ask(site, "cache.closed").status is Status.PASS


def test_an_unhealthy_daemon_fails_once(site: Site) -> None:
    site.cache["node1"].routes["/healthcheck"] = lambda body: {"status": "unhealthy"}
    assert failing(site, "cache.health").seen == "/healthcheck says 'unhealthy'"


def test_a_sick_part_is_named(site: Site) -> None:
    storage = {"l2_adapters": [l2_adapter()], **l1(), "store_controller": {"is_healthy": False}}
    site.cache["node1"].routes["/status"] = status_with(is_healthy=False, storage_manager=storage)
    assert failing(site, "cache.health").seen.endswith("/status says is_healthy false: store_controller")


def test_what_is_wrong_with_its_stores_alone_is_not_its_own_health(site: Site) -> None:
    storage = {"l2_adapters": [l2_adapter() | {"is_healthy": False}], **l1()}
    site.cache["node1"].routes["/status"] = status_with(is_healthy=False, storage_manager=storage)
    assert failing(site, "cache.l2").seen.endswith("not healthy: kvstrata")
    assert ask(site, "cache.health").seen == "healthy, but for its way to the stores (cache.breaker, cache.l2)"


def test_chunks_of_another_size_fail_once(site: Site) -> None:
    adapter = l2_adapter() | {"namespace": "kvs-of-another-chunk-size"}
    site.cache["node1"].routes["/status"] = status_with(
        chunk_size=16, storage_manager={"l2_adapters": [adapter], **l1()}
    )
    assert failing(site, "cache.chunk").seen == "16 tokens"
    assert "follows from cache.chunk" in ask(site, "cache.identity").seen


def test_the_dram_tier_tells_what_is_in_use(site: Site) -> None:
    shell = site.nodes["node1"].shell
    shell.answers['sh -c grep -E "^Vm'] = "VmLck:\t     2048 kB\nVmPin:\t       0 kB\nVmSwap:\t 0 kB\n"
    check = ask(site, "cache.tier")
    assert check.seen == "2.00 GiB, 0.00 in use"
    assert check.data["used_bytes"] == 1 << 20
    assert check.data["read_locked_count"] == 1
    assert check.data["lck_bytes"] == 2048 * 1024


@pytest.mark.parametrize("gib", [1.0, 2.1, 0.0])
def test_a_dram_tier_of_another_size_fails_once(site: Site, gib: float) -> None:
    storage = {"l2_adapters": [l2_adapter()], **l1(gib)}
    site.cache["node1"].routes["/status"] = status_with(storage_manager=storage)
    check = failing(site, "cache.tier")
    assert (check.expected, check.seen) == ("2 GiB", f"{gib:.2f} GiB, 0.00 in use")


def test_a_dram_tier_whose_size_nobody_says_is_not_checked(site: Site) -> None:
    del site.document["nodes"][0]["lmcache"]["l1_gib"]
    assert ask(site, "cache.tier").seen.startswith("NOT CHECKED: whether its DRAM tier is as large as it should be")
    site.document["nodes"][0]["lmcache"]["l1_gib"] = 2.0
    site.cache["node1"].routes["/status"] = status_with(storage_manager={"l2_adapters": [l2_adapter()]})
    assert ask(site, "cache.tier").seen.startswith("NOT CHECKED: how large its DRAM tier is")


def test_an_engine_that_is_not_registered_fails_once(site: Site) -> None:
    site.cache["node1"].routes["/status"] = status_with(registered_gpu_ids=[])
    assert failing(site, "cache.engines").seen == "0: an engine runs without its cache"


@pytest.mark.parametrize("where", ["node1", "node2"])
def test_a_daemon_reachable_on_the_fabric_fails_once(site: Site, where: str) -> None:
    site.nodes[where].shell.reaches["10.9.0.11", 8090] = Reach.OPEN
    assert f"open from {where}" in failing(site, "cache.closed").seen


def test_a_daemon_behind_a_silent_firewall_passes(site: Site) -> None:
    site.nodes["node2"].shell.reaches["10.9.0.11", 8090] = Reach.SILENT
    check = ask(site, "cache.closed")
    assert (check.status, check.seen) == (Status.PASS, "refused from node1, no answer from node2")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_nobody_else_reaches_a_node_that_is_known_by_its_loopback(site: Site, host: str) -> None:
    site.document["nodes"][0] |= {"stores": [], "engines": [], "router": None}
    site.document["nodes"][0]["ssh"]["host"] = host
    site.nodes["node1"].shell.reaches[host, 8090] = Reach.OPEN
    check = ask(site, "cache.closed")
    assert check.status is Status.SKIP
    assert f"the inventory knows this node as {host}, which none does" in check.seen
