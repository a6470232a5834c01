"""LMCache's way to the stores: breakers, what is written, the namespace. One fault, one failure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kvstrata.verify.check import Check, Status
from kvstrata.verify.layers import cache
from kvstrata.verify.layers.cache import stores as layer
from tests.verify.fakes.documents import NAMESPACE, l1, l2_adapter
from tests.verify.fakes.nodes import files
from tests.verify.fakes.shell import closed_port
from tests.verify.fakes.site import Site
from tests.verify.fakes.tls import Authority, TlsServer

DEAD: dict[str, Any] = {"up": False, "breaker": "open", "last_failure": "load: no byte for 2 s", "breaker_opened": 1}


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer, "SETTLE_S", 0.0)


def ask(site: Site, check_id: str) -> Check:
    return next(check for check in cache.checks(site.context()) if check.id == check_id)


def failing(site: Site, check_id: str) -> Check:
    """The check, when it is the only one that fails."""
    found = list(cache.checks(site.context()))
    assert [check.id for check in found if check.bad] == [check_id], found
    return next(check for check in found if check.id == check_id)


def status_of(*adapters: dict[str, Any], healthy: bool = True) -> Callable[[dict[str, Any]], object]:
    storage = {"l2_adapters": list(adapters), **l1()}
    found = {"is_healthy": healthy, "chunk_size": 256, "storage_manager": storage, "registered_gpu_ids": [1]}
    return lambda body: found


def report(site: Site, **first: Any) -> None:
    """Let LMCache on node1 say this of the first store."""
    site.cache["node1"].routes["/status"] = status_of(l2_adapter(**first))


# -- breakers --------------------------------------------------------------------------------------


def test_closed_breakers_are_counted(site: Site) -> None:
    report(site, breaker_opened=3)
    check = ask(site, "cache.breaker")
    assert check.seen == "closed towards all 2 stores; opened 3 times since its start"
    assert check.data == {"stores": 2, "stores_up": 2, "opened_since_start": 3}


def test_a_breaker_that_is_open_towards_a_store_that_answers_is_the_one_failure(site: Site) -> None:
    report(site, **DEAD)
    check = failing(site, "cache.breaker")
    assert check.seen == (
        "10.9.0.11:6666 (d0 of node1) (load: no byte for 2 s): open, though the store answers this node"
    )
    assert check.data["stores_up"] == 1


def test_a_breaker_open_towards_every_store_is_the_one_failure(site: Site) -> None:
    adapter = l2_adapter(**DEAD)
    adapter["endpoints"]["10.9.0.12:6666"] |= DEAD
    site.cache["node1"].routes["/status"] = status_of(adapter | {"is_healthy": False}, healthy=False)
    failing(site, "cache.breaker")
    assert ask(site, "cache.l2").seen.startswith("NOT CHECKED: whether chunks reach the stores: none is in use")
    assert "all are left alone" in ask(site, "cache.adapter").seen


def test_a_breaker_open_towards_a_store_that_is_down_is_right_to_be(site: Site) -> None:
    report(site, **DEAD)
    site.nodes["node1"].shell.ports["10.9.0.11", 6666] = closed_port()
    found = list(cache.checks(site.context()))
    assert [check.id for check in found if check.bad] == []
    check = ask(site, "cache.breaker")
    assert check.status is Status.SKIP
    assert check.seen.startswith("NOT CHECKED: whether it takes back a store that does not answer this node either")
    assert "10.9.0.11:6666 (d0 of node1): 10.9.0.11:6666: " in check.seen


def test_one_dead_breaker_is_named_beside_one_that_is_right_to_be_open(site: Site) -> None:
    adapter = l2_adapter(**DEAD)
    adapter["endpoints"]["10.9.0.12:6666"] |= DEAD
    site.cache["node1"].routes["/status"] = status_of(adapter)
    del site.nodes["node1"].shell.ports["10.9.0.12", 6666]
    check = failing(site, "cache.breaker")
    assert "10.9.0.11:6666" in check.seen
    assert "10.9.0.12:6666" not in check.seen


def test_a_breaker_that_closes_again_at_once_is_no_fault(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer, "SETTLE_S", 5.0)
    answers = [status_of(l2_adapter(**DEAD)), status_of(l2_adapter(up=True, breaker_opened=1))]
    site.cache["node1"].routes["/status"] = lambda body: answers.pop(0)(body) if len(answers) > 1 else answers[0](body)
    found = list(cache.checks(site.context()))
    assert [check.id for check in found if check.status is not Status.PASS] == []


def test_a_store_whose_certificate_clients_refuse_is_rightly_left_alone(site: Site, tmp_path: Any) -> None:
    authority = Authority()
    site.document["nodes"][0]["stores"][0] |= {"tls_port": 7666, "tls_ca": "/ca.pem"}
    adapter = l2_adapter(["10.9.0.11:7666", "10.9.0.12:6666"], **DEAD)
    site.cache["node1"].routes["/status"] = status_of(adapter)
    shell = site.nodes["node1"].shell
    shell.answers["sh -c for file"] = files({"/ca.pem": lambda: authority.pem})
    with TlsServer(authority.issue(tmp_path, "10.9.0.11", days=-1)) as server:
        shell.ports["10.9.0.11", 7666] = server.port
        check = ask(site, "cache.breaker")
        assert check.status is Status.SKIP
        assert "certificate has expired" in check.seen
    with TlsServer(authority.issue(tmp_path, "10.9.0.11", days=9)) as server:
        shell.ports["10.9.0.11", 7666] = server.port
        failing(site, "cache.breaker")


# -- what is written -------------------------------------------------------------------------------


def test_without_an_adapter_nothing_is_kept(site: Site) -> None:
    site.cache["node1"].routes["/status"] = status_of()
    assert "no L2 adapter" in failing(site, "cache.l2").seen


def test_damaged_pieces_fail_once(site: Site) -> None:
    report(site, counters={"damaged": 2})
    assert "2 damaged pieces were read" in failing(site, "cache.l2").seen


def test_a_store_that_the_adapter_does_not_know_is_named(site: Site) -> None:
    site.cache["node1"].routes["/status"] = status_of(l2_adapter(["10.9.0.11:6666"]))
    assert failing(site, "cache.l2").seen == "it does not know 10.9.0.12:6666 (d0 of node2)"


def test_a_store_that_the_inventory_lacks_is_named(site: Site) -> None:
    site.cache["node1"].routes["/status"] = status_of(l2_adapter([*site.addresses, "10.9.0.99:6666"]))
    assert failing(site, "cache.l2").seen == "it uses 10.9.0.99:6666, which is not in the inventory"


def test_another_capacity_than_the_inventorys_is_named(site: Site) -> None:
    report(site, capacity_bytes=1 << 20)
    assert "it takes 1048576 bytes for the capacity of 10.9.0.11:6666" in failing(site, "cache.l2").seen


def test_stores_that_never_succeed_fail_though_everything_says_healthy(site: Site) -> None:
    site.nodes["node1"].count |= {"submitted": 40, "completed": 0}
    assert "stored 0 of 40 chunks" in failing(site, "cache.l2").seen


@pytest.mark.parametrize(
    ("change", "seen"), [({"counters": {"store_full": 3}}, "see store.capacity"), ({}, "never succeed")]
)
def test_chunks_that_a_full_store_refused_are_that_stores_matter(site: Site, change: dict[str, Any], seen: str) -> None:
    site.nodes["node1"].count |= {"submitted": 40, "completed": 0}
    site.cache["node1"].routes["/status"] = status_of(l2_adapter() | change)
    check = ask(site, "cache.l2")
    assert seen in check.seen
    assert check.status is (Status.SKIP if change else Status.FAIL)


# -- identity --------------------------------------------------------------------------------------


def test_another_namespace_than_the_inventorys_is_the_one_failure(site: Site) -> None:
    site.cache["node1"].routes["/status"] = status_of(l2_adapter() | {"namespace": "kvs-fedcba9876543210"})
    check = failing(site, "cache.identity")
    assert check.expected == NAMESPACE
    assert check.seen.startswith("kvs-fedcba9876543210: its chunks are not those of the model")
    assert check.data["namespace"] == "kvs-fedcba9876543210"


def test_what_other_namespaces_hold_is_told_and_no_fault(site: Site) -> None:
    report(site, namespaces={NAMESPACE: 1 << 28, "kvs-older": 1 << 29})
    check = ask(site, "cache.identity")
    assert check.seen == f"{NAMESPACE}; 0.50 GiB of 1 others on the stores"
    assert check.data["others"] == {"kvs-older": 1 << 29}


def test_an_inventory_without_a_locked_wheelhouse_leaves_it_unproven(site: Site) -> None:
    site.document["nodes"][0]["lmcache"]["namespace"] = None
    check = ask(site, "cache.identity")
    assert check.status is Status.SKIP
    assert check.seen.startswith("NOT CHECKED: that its chunks are of the inventory's model")


# -- the way through the adapter -------------------------------------------------------------------


def test_a_chunk_goes_to_every_store_of_a_small_site(site: Site) -> None:
    check = ask(site, "cache.adapter")
    assert check.seen == (
        "4 MiB, stored in 40 ms, found in 1 ms, loaded in 12 ms, deleted in 2 ms on 2 stores, sha256 equal"
    )
    stores = check.data["stores"]
    assert isinstance(stores, dict)
    assert stores["10.9.0.12:6666"] == {"store": 0.04, "lookup": 0.001, "load": 0.012, "delete": 0.002}
