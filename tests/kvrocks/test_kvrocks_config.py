"""What an inventory may say of Kvrocks, and the store that comes of it."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from kvstrata.affinity import cpus
from kvstrata.kvrocks.affinity import drop_in
from kvstrata.kvrocks.config import addresses, directives, judge_settings
from kvstrata.kvrocks.directives import DIRECTIVES
from kvstrata.kvrocks.memory import kvrocks_mib, redis_mib
from kvstrata.kvrocks.profiles import PROFILES
from kvstrata.kvrocks.store import Settings, render, stores

INSTANCE = {"drive": "d0", "host": "10.0.0.1", "port": 6666, "password": "pa#ss", "max_db_size_gib": 100}
SETTINGS: dict[str, Any] = {
    "engine": "kvrocks",
    "profile": "ssd_cache",
    "workers": 8,
    "config": {},
    "bind": "10.0.0.1",
    "bind_also": [],
    "unix_socket": False,
    "tls": {},
    "numa_policy": "preferred",
    "redis_maxmemory_mib": 64,
}


def lines(**given: Any) -> list[str]:
    return [str(problem) for problem in judge_settings("n1", given)]


def store(instance: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    (found,) = stores([instance or INSTANCE], {**SETTINGS, **changes})
    return found


# --- judging ---


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_holds_what_kvrocks_accepts(profile: str) -> None:
    assert lines(kvrocks_profile=profile, kvrocks_config=dict(PROFILES[profile])) == []


def test_nothing_said_is_nothing_wrong() -> None:
    assert lines() == []


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"kvrocks_profile": "fast"}, "kvrocks_profile is 'fast'; allowed: ssd_cache, ssd_durable, dram"),
        ({"kvrocks_workers": 0}, "kvrocks_workers is 0; allowed: 1 to 256"),
        (
            {"kvrocks_config": {"wrkers": 4}},
            "kvrocks_config[wrkers] is 4; allowed: a directive of Kvrocks 2.10.1; did you mean workers?",
        ),
        (
            {"kvrocks_config": {"block_size": 4}},
            "kvrocks_config[block_size] is 4; allowed: a directive of Kvrocks 2.10.1; did you mean rocksdb.block_size?",
        ),
        (
            {"kvrocks_config": {"xyz": 4}},
            "kvrocks_config[xyz] is 4; allowed: a directive of Kvrocks 2.10.1, as its kvrocks.conf names them",
        ),
        (
            {"kvrocks_config": {"dump_malloc_stats": "yes"}},
            "kvrocks_config[dump_malloc_stats] is 'yes'; allowed: not this one: "
            "Kvrocks 2.10.1 ignores it, with no more than a warning on its standard output",
        ),
        (
            {"kvrocks_config": {"rocksdb.write_buffer_size": 4097}},
            "kvrocks_config[rocksdb.write_buffer_size] is 4097; allowed: a whole number, 0 to 4096 (MiB)",
        ),
        (
            {"kvrocks_config": {"max-db-size": 4}},
            "kvrocks_config[max-db-size] is 4; allowed: nothing here: set by store_gib of kvstrata_drives",
        ),
        (
            {"kvrocks_config": {"tls-port": 4}},
            "kvrocks_config[tls-port] is 4; allowed: nothing here: set by kvrocks_tls",
        ),
        (
            {"kvrocks_instances": [{**INSTANCE, "max_db_size_gib": 0}]},
            "kvrocks_instances[].max_db_size_gib is 0; allowed: 1 or more",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_name_value_and_what_can(given: dict[str, Any], line: str) -> None:
    assert lines(**given) == [f"n1: {line}"]


def test_a_password_that_is_set_in_the_wrong_place_is_not_printed() -> None:
    (line,) = lines(kvrocks_config={"requirepass": "s3cret"})
    assert "s3cret" not in line


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "*"])  # noqa: S104 - refused
def test_every_address_is_refused_unless_a_firewall_is_stated(address: str) -> None:
    allowed = "one address of the host, never all of them unless kvrocks_firewalled says that a firewall guards them"
    assert lines(kvrocks_bind=address) == [f"n1: kvrocks_bind is {address!r}; allowed: {allowed}"]
    assert lines(kvrocks_bind_also=[address]) == [f"n1: kvrocks_bind_also is {address!r}; allowed: {allowed}"]
    assert lines(kvrocks_bind_also=[address], kvrocks_firewalled=True) == []


def test_every_address_makes_single_ones_superfluous() -> None:
    assert addresses("10.0.0.1", []) == "10.0.0.1"
    assert addresses("10.0.0.1", ["10.1.0.1", "10.0.0.1"]) == "10.0.0.1 10.1.0.1"
    assert addresses("10.0.0.1", ["::"]) == "::"


# --- stores ---


def test_what_is_rendered_is_what_is_compared_but_for_the_password() -> None:
    found = store(config={"rocksdb.compression": False, "workers": 4})
    rendered = dict(line.split(" ", 1) for line in found["conf"].splitlines() if not line.startswith("#"))
    assert rendered.pop("requirepass") == '"pa#ss"'
    assert rendered == found["config"]
    assert (rendered["workers"], rendered["rocksdb.compression"]) == ("4", "no")
    assert (rendered["bind"], rendered["port"], rendered["max-db-size"]) == ("10.0.0.1", "6666", "100")
    assert (found["unit"], found["path"]) == ("kvrocks@d0.service", "/etc/kvstrata/kvrocks/d0.conf")


def test_a_password_survives_the_quoting() -> None:
    assert render({"requirepass": 'a"b\\c'}).splitlines()[-1] == 'requirepass "a\\"b\\\\c"'


def test_the_socket_and_tls_of_a_store_are_its_own() -> None:
    tls = {"first_port": 6766, "cert": "/c", "key": "/k", "ca": "/a", "auth_clients": "yes"}
    first, second = stores([INSTANCE, {**INSTANCE, "drive": "d1"}], {**SETTINGS, "unix_socket": True, "tls": tls})
    assert (first["config"]["tls-port"], second["config"]["tls-port"]) == ("6766", "6767")
    assert second["config"]["unixsocket"] == "/run/kvstrata/kvrocks/d1.sock"
    # systemd's own folder, not the files that root alone may read.
    assert second["config"]["tls-key-file"] == "/run/credentials/kvrocks@d1.service/tls-key"
    assert second["config"]["tls-ca-cert-file"].endswith("/tls-ca")
    assert "unixsocket" not in store()["config"]
    assert "tls-port" not in store()["config"]


def test_the_stand_in_never_evicts() -> None:
    found = store(engine="redis")
    assert found["config"]["maxmemory-policy"] == "noeviction"
    assert found["config"]["maxmemory"] == str(64 << 20)
    assert not found["config"].keys() & {"max-db-size", *(name for name in DIRECTIVES if name.startswith("rocksdb"))}


def test_the_settings_are_what_the_role_passes() -> None:
    assert set(SETTINGS) == {field.name for field in dataclasses.fields(Settings)}


# --- affinity ---


@pytest.mark.parametrize(("text", "found"), [("0", {0}), ("0-2,8", {0, 1, 2, 8}), ("3-3", {3})])
def test_a_list_of_cpus_is_read(text: str, found: set[int]) -> None:
    assert cpus(text) == found


@pytest.mark.parametrize("text", ["", "a", "3-1", "1,,2", "-1", "1-"])
def test_what_is_no_list_of_cpus_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        cpus(text)


def test_a_drop_in_without_a_policy_places_by_cpus_alone() -> None:
    assert drop_in({"numa_node": 1}, "none") == ""
    assert drop_in({"cpus": "4", "numa_node": 1}, "none") == "[Service]\nCPUAffinity=4\n"


@pytest.mark.parametrize(
    ("drive", "text"),
    [
        ({}, ""),
        ({"cpus": None, "numa_node": None}, ""),
        ({"cpus": "2-3,0"}, "[Service]\nCPUAffinity=0 2 3\n"),
        ({"numa_node": 1}, "[Service]\nCPUAffinity=numa\nNUMAPolicy=bind\nNUMAMask=1\n"),
        ({"cpus": "4", "numa_node": 0}, "[Service]\nCPUAffinity=4\nNUMAPolicy=bind\nNUMAMask=0\n"),
    ],
)
def test_a_drop_in_has_what_the_drive_has(drive: dict[str, Any], text: str) -> None:
    assert drop_in(drive, "bind") == text


# --- memory ---


def test_a_larger_memtable_or_cache_takes_more_memory_by_what_kvrocks_makes_of_it() -> None:
    base = kvrocks_mib(directives("ssd_cache", 8, {}))
    twice = kvrocks_mib(directives("ssd_cache", 8, {"rocksdb.write_buffer_size": 512}))
    # Six memtables of the family with the values, and one with its bloom filter of the other's.
    assert twice - base == pytest.approx(256 * 7.1 * 1.1, abs=1)
    cached = kvrocks_mib(directives("ssd_cache", 8, {"rocksdb.block_cache_size": 1256}))
    assert cached - base == pytest.approx(1100, abs=1)


def test_a_block_cache_of_zero_is_the_sum_of_two_others() -> None:
    zero = kvrocks_mib(directives("ssd_cache", 8, {"rocksdb.block_cache_size": 0}))
    same = kvrocks_mib(directives("ssd_cache", 8, {"rocksdb.block_cache_size": 4096}))
    assert zero == same


def test_the_stand_in_takes_its_maxmemory_and_a_little() -> None:
    assert 1024 < redis_mib(1024) < 1300
