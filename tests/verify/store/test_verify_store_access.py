"""Who may come into a store, and that what is written comes back."""

from __future__ import annotations

import json

import pytest

from kvstrata.verify.check import Check, Layer, Status
from kvstrata.verify.layers import NODE_LAYERS, store
from tests.verify.fakes.site import Site


def checks(site: Site) -> list[Check]:
    return list(store.checks(site.context()))


def ask(site: Site, check_id: str) -> Check:
    return next(check for check in checks(site) if check.id == check_id)


def failures(site: Site) -> list[str]:
    return [check.id for check in checks(site) if check.bad]


def test_everything_passes_on_a_good_store(site: Site) -> None:
    found = checks(site)
    assert [check.status for check in found] == [Status.PASS] * len(found)
    assert {check.id for check in found} == {
        "store.auth",
        "store.engine",
        "store.dir",
        "store.config",
        "store.capacity",
        "store.roundtrip",
        "store.stalls",
        "store.fabric",
    }


def test_a_store_without_password_fails_once(site: Site) -> None:
    site.resp["node1"].password = None
    assert ask(site, "store.auth").seen == "no password was accepted"
    assert failures(site) == ["store.auth"]


@pytest.mark.parametrize("engine", ["kvrocks", "redis"])
def test_a_store_with_another_password_fails_once(site: Site, engine: str) -> None:
    site.resp["node1"].password = "another"
    site.resp["node1"].engine = engine
    assert ask(site, "store.auth").seen == "the inventory's password was refused"
    assert failures(site) == ["store.auth"]
    followed = ask(site, "store.roundtrip")
    assert followed.status is Status.SKIP
    assert followed.seen == "NOT CHECKED: follows from store.auth on node1 (d0 10.9.0.11:6666 password)"


def test_a_store_that_does_not_listen_fails_once_with_its_address(site: Site) -> None:
    del site.nodes["node1"].shell.ports["10.9.0.11", 6666]
    check = ask(site, "store.auth")
    assert (check.status, check.seen) == (Status.FAIL, "10.9.0.11:6666: Connection refused")
    assert failures(site) == ["store.auth"]


def test_a_store_that_changes_the_value_fails(site: Site) -> None:
    site.resp["node1"].corrupt = True
    assert "1048576 bytes came back with sha256" in ask(site, "store.roundtrip").seen
    assert failures(site) == ["store.roundtrip"]


def test_a_store_that_loses_the_value_fails(site: Site) -> None:
    site.resp["node1"].forgets = True
    assert ask(site, "store.roundtrip").seen == "the value just written is not there"
    assert failures(site) == ["store.roundtrip"]


def test_a_store_that_cannot_delete_fails(site: Site) -> None:
    site.resp["node1"].keeps_deleted = True
    assert "could not be deleted" in ask(site, "store.roundtrip").seen
    assert failures(site) == ["store.roundtrip"]


def test_a_store_that_only_reads_fails_with_what_it_says(site: Site) -> None:
    site.resp["node1"].full = "READONLY You can't write against a read only replica."
    assert "it does not write: You can't write against" in ask(site, "store.roundtrip").seen
    assert failures(site) == ["store.roundtrip"]


def test_the_round_trip_leaves_nothing_behind_even_when_it_fails(site: Site) -> None:
    site.resp["node1"].corrupt = True
    ask(site, "store.roundtrip")
    assert site.resp["node1"].data == {}
    assert "EXPIRE" in site.resp["node1"].commands


def test_the_round_trip_is_made_once(site: Site) -> None:
    checks(site)
    assert site.resp["node1"].commands.count("HSET") == 1


def test_redis_where_the_inventory_says_kvrocks_fails_once(site: Site) -> None:
    site.nodes["node1"].shell.answers["stat -f"] = "4096 1000 500"
    site.resp["node1"].engine = "redis"
    check = ask(site, "store.engine")
    assert (check.status, check.expected, check.seen) == (Status.FAIL, "kvrocks", "redis 7.0.15")
    assert failures(site) == ["store.engine"]


def test_data_outside_the_drive_fails_once(site: Site) -> None:
    site.resp["node1"].folder = "/var/lib/kvrocks"
    check = ask(site, "store.dir")
    assert (check.status, check.seen) == (Status.FAIL, "/var/lib/kvrocks")
    assert failures(site) == ["store.dir"]


def test_a_store_closed_to_other_nodes_fails_once(site: Site) -> None:
    del site.nodes["node2"].shell.ports["10.9.0.11", 6666]
    check = ask(site, "store.fabric")
    assert check.what == "d0 10.9.0.11:6666 from node2"
    assert failures(site) == ["store.fabric"]


def test_a_dram_store_passes_but_says_loudly_that_the_ssd_tier_is_not_proven(site: Site) -> None:
    site.document["nodes"][0]["stores"][0] |= {"engine": "redis", "tier": "dram"}
    site.resp["node1"].engine = "redis"
    site.nodes["node1"].shell.answers["stat -f"] = "4096 1000 500"
    assert ask(site, "store.engine").status is Status.PASS
    check = ask(site, "store.ssd")
    assert check.status is Status.SKIP
    assert "DRAM store (redis-server): NOT the SSD tier" in check.seen
    assert not {"store.dir", "store.stalls"} & {check.id for check in checks(site)}


def test_the_password_is_in_no_check(site: Site) -> None:
    for password in ("secret-pw", "another"):
        site.resp["node1"].password = password
        for check in NODE_LAYERS[Layer.STORE](site.context()):
            assert "secret-pw" not in json.dumps(check.as_json())
            assert "another" not in json.dumps(check.data)
