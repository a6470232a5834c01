"""The configuration in force against the file, directive by directive, whatever form its values have."""

from __future__ import annotations

import json

import pytest

from kvstrata.kvrocks.store import stores
from kvstrata.verify.check import Check, Status
from kvstrata.verify.layers import store
from kvstrata.verify.layers.store import config
from tests.verify.fakes.nodes import files
from tests.verify.fakes.site import Site

PATH = "/etc/kvstrata/kvrocks/d0.conf"


def asked(site: Site) -> Check:
    found = list(store.checks(site.context()))
    assert [check.id for check in found if check.bad] in ([], ["store.config"])
    return next(check for check in found if check.id == "store.config")


def running(site: Site, **changes: str) -> None:
    """Let the store run with other values than its file sets."""
    conf = site.resp["node1"].conf()
    site.nodes["node1"].shell.answers["sh -c for file"] = files({PATH: lambda: conf})
    site.resp["node1"].config |= changes


def test_a_configuration_in_force_is_counted(site: Site) -> None:
    check = asked(site)
    assert check.seen == "all 6 directives compared are in force"
    assert check.data["in_force"] == 6


def test_a_directive_that_was_changed_while_it_runs_is_named_with_both_values(site: Site) -> None:
    running(site, workers="2")
    check = asked(site)
    assert (check.status, check.seen) == (Status.FAIL, "workers is 2, the file sets 8")
    assert check.data["differing"] == ["workers"]


def test_several_are_all_named(site: Site) -> None:
    running(site, workers="2", **{"max-db-size": "3"})
    assert asked(site).seen == "workers is 2, the file sets 8; max-db-size is 3, the file sets 2"


def test_another_password_than_the_files_is_named_and_not_shown(site: Site) -> None:
    conf = site.resp["node1"].conf().replace("secret-pw", "older-secret")
    site.nodes["node1"].shell.answers["sh -c for file"] = files({PATH: lambda: conf})
    check = asked(site)
    assert check.seen == "requirepass in force is another than the file's (not shown)"
    told = json.dumps(check.as_json())
    assert "secret-pw" not in told
    assert "older-secret" not in told


def test_what_the_store_does_not_report_is_counted_as_not_compared(site: Site) -> None:
    conf = site.resp["node1"].conf() + "enable-blob-cache yes\n"
    site.nodes["node1"].shell.answers["sh -c for file"] = files({PATH: lambda: conf})
    check = asked(site)
    assert check.status is Status.PASS
    assert check.seen.endswith("in force; not reported, so not compared: enable-blob-cache")
    assert check.data["not_compared"] == ["enable-blob-cache"]


def test_a_file_that_is_not_there_fails(site: Site) -> None:
    site.nodes["node1"].shell.answers["sh -c for file"] = files({})
    assert asked(site).seen == f"{PATH} is not there, or cannot be read"


def test_a_node_that_cannot_be_asked_for_the_file_is_an_error(site: Site) -> None:
    del site.nodes["node1"].shell.answers["sh -c for file"]
    assert asked(site).status is Status.ERROR


def test_without_a_file_in_the_inventory_it_says_what_is_not_proven(site: Site) -> None:
    del site.document["nodes"][0]["stores"][0]["config_path"]
    check = asked(site)
    assert check.status is Status.SKIP
    assert check.seen.startswith("NOT CHECKED: that the store runs with the rendered configuration")


def test_all_files_of_a_node_are_read_in_one_command(site: Site) -> None:
    node = site.document["nodes"][0]
    node["stores"].append(node["stores"][0] | {"drive": "d1", "config_path": "/etc/kvstrata/kvrocks/d1.conf"})
    list(store.checks(site.context()))
    assert len([line for line in site.nodes["node1"].shell.ran if line.startswith("sh -c for file")]) == 1


@pytest.mark.parametrize(
    ("name", "rendered", "reported", "kvrocks"),
    [
        ("proto-max-bulk-len", "512m", "536870912", True),
        ("proto-max-bulk-len", "512M", "536870912", True),
        ("rocksdb.enable_blob_files", "YES", "yes", True),
        ("rocksdb.compression", "no", "no", True),
        ("workers", "08", "8", True),
        ("bind", "10.0.0.1  127.0.0.1", "10.0.0.1 127.0.0.1", True),
        ("maxmemory", "1gb", "1073741824", False),
        ("maxmemory", "1g", "1000000000", False),
        ("appendonly", "No", "no", False),
        ("save", "", "", False),
        ("dir", "/a/b", "/a/b", True),
    ],
)
def test_two_forms_of_one_value_are_equal(name: str, rendered: str, reported: str, kvrocks: bool) -> None:
    assert config.compare({name: rendered}, {name: reported}, kvrocks).equal == (name,)


@pytest.mark.parametrize(
    ("name", "rendered", "reported", "kvrocks"),
    [
        ("proto-max-bulk-len", "512m", "536870913", True),
        ("rocksdb.enable_blob_files", "yes", "no", True),
        ("bind", "10.0.0.1", "10.0.0.2", True),
        ("maxmemory", "1gb", "0", False),
        ("dir", "/a/b", "/a/B", True),
    ],
)
def test_two_values_are_not(name: str, rendered: str, reported: str, kvrocks: bool) -> None:
    assert [one[0] for one in config.compare({name: rendered}, {name: reported}, kvrocks).differing] == [name]


def test_what_the_role_renders_is_read_as_it_was_meant() -> None:
    instance = {"drive": "d0", "host": "10.0.0.1", "port": 6666, "password": 'a "quoted" # one', "max_db_size_gib": 8}
    settings = {
        "engine": "kvrocks",
        "profile": "ssd_cache",
        "workers": 8,
        "config": {"compact-cron": "0 3 * * *"},
        "bind": "10.0.0.1",
        "bind_also": ["127.0.0.1"],
        "unix_socket": True,
        "tls": {"first_port": 7000, "ca": "/ca"},
        "numa_policy": "preferred",
        "redis_maxmemory_mib": 64,
    }
    (made,) = stores([instance], settings)
    assert config.parse(made["conf"]) == {**made["config"], "requirepass": 'a "quoted" # one'}
