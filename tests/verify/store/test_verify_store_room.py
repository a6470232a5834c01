"""Room in a store, and writes that RocksDB holds up."""

from __future__ import annotations

import pytest

from kvstrata.verify.check import Check, Status, UnmetError
from kvstrata.verify.layers import store
from kvstrata.verify.layers.store import stalls
from tests.verify.fakes.site import Site

REFUSAL = "ERR write command not allowed when reached max-db-size."


def failing(site: Site, check_id: str) -> Check:
    """The check, when it is the only one that fails."""
    found = list(store.checks(site.context()))
    assert [check.id for check in found if check.bad] == [check_id]
    return next(check for check in found if check.id == check_id)


def other(site: Site, check_id: str) -> Check:
    return next(check for check in store.checks(site.context()) if check.id == check_id)


def test_a_full_store_is_named_by_its_capacity_and_the_round_trip_follows(site: Site) -> None:
    site.resp["node1"].full = REFUSAL
    site.resp["node1"].info["used_db_size"] = str(2 << 30)
    check = failing(site, "store.capacity")
    assert "its files have reached max-db-size; it does not write: write command not allowed" in check.seen
    assert check.data["files_bytes"] == check.data["files_limit_bytes"] == 2 << 30
    trip = other(site, "store.roundtrip")
    assert trip.status is Status.SKIP
    assert trip.seen == "NOT CHECKED: follows from store.capacity on node1 (d0 10.9.0.11:6666 capacity)"


@pytest.mark.parametrize(
    "said",
    [
        REFUSAL,
        "OOM command not allowed when used memory > 'maxmemory'.",
        "ERR IO error: No space left on device: While appending to file",
        "MISCONF Errors writing to the AOF file",
    ],
)
def test_a_store_that_says_it_is_full_is_full_whatever_it_counts(site: Site, said: str) -> None:
    site.resp["node1"].full = said
    assert "it does not write" in failing(site, "store.capacity").seen


def test_chunks_above_the_capacity_fail_and_what_is_written_still_comes_back(site: Site) -> None:
    site.resp["node1"].indexes = {b"kvs-0123456789abcdef:1048576": 900, b"kvs-other:1048576": 140}
    check = failing(site, "store.capacity")
    assert check.seen.startswith("chunks 1.02 of 1.00 GiB")
    assert check.seen.endswith("its chunks take 1.6% more than its capacity")
    assert check.data["namespaces"] == {"kvs-0123456789abcdef": 900 << 20, "kvs-other": 140 << 20}
    assert other(site, "store.roundtrip").status is Status.PASS


def test_chunks_a_little_above_the_capacity_are_within_the_limit(site: Site) -> None:
    site.resp["node1"].indexes = {b"kvs-0123456789abcdef:1048576": 1033}
    assert other(site, "store.capacity").status is Status.PASS
    site.document["verify"]["limits"] = {"store_over_share": 0.001}
    failing(site, "store.capacity")


def test_a_drive_without_free_space_fails(site: Site) -> None:
    site.resp["node1"].info["used_disk_size"] = "980000"
    assert "only 2.0% is free, at least 3.0% should be" in failing(site, "store.capacity").seen
    site.document["verify"]["limits"] = {"drive_free_share": 0.01}
    assert other(site, "store.capacity").status is Status.PASS


def test_a_store_without_a_limit_says_so(site: Site) -> None:
    site.resp["node1"].info["max_db_size"] = "0"
    check = other(site, "store.capacity")
    assert check.status is Status.PASS
    assert "without a limit" in check.seen


def test_a_full_drive_under_the_stand_in_fails_too(site: Site) -> None:
    site.document["nodes"][0]["stores"][0] |= {"engine": "redis", "tier": "dram"}
    site.resp["node1"].engine = "redis"
    shell = site.nodes["node1"].shell
    shell.answers["stat -f -c %S %b %a /drives/d0"] = "4096 1000 500\n"
    assert "drive 50% free" in other(site, "store.capacity").seen
    shell.answers["stat -f -c %S %b %a /drives/d0"] = "4096 1000 10\n"
    assert "only 1.0% is free" in failing(site, "store.capacity").seen


def test_full_memory_of_the_stand_in_fails(site: Site) -> None:
    site.document["nodes"][0]["stores"][0] |= {"engine": "redis", "tier": "dram"}
    site.resp["node1"].engine = "redis"
    site.nodes["node1"].shell.answers["stat -f"] = "4096 1000 500\n"
    site.resp["node1"].info |= {"used_memory": "1000", "maxmemory": "2000"}
    assert "memory 0.00 of 0.00 GiB" in other(site, "store.capacity").seen
    site.resp["node1"].info["used_memory"] = "2000"
    assert "its memory has reached maxmemory" in failing(site, "store.capacity").seen


GOOD = {"level0_file_limit_stop[default]": 3, "num_background_errors": 0, "compaction_pending": 0}


def test_stalls_before_are_counted_and_no_fault() -> None:
    numbers: dict[str, object] = {}
    seen = stalls.judge(GOOD, {**GOOD, "num_background_errors": 0}, numbers)  # type: ignore[arg-type]
    assert seen == "writes go on; since its start 3 stalls, 0 failed flushes or compactions"
    assert numbers["since_start"] == {"level0_file_limit_stop": 3}


def test_pending_work_is_told() -> None:
    assert stalls.judge(GOOD, {**GOOD, "compaction_pending": 2}, {}).endswith("; compaction pending")


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"level0_file_limit_stop[default]": 5}, "writes were stopped 2 times while it was looked at: too many files"),
        ({"memtable_count_limit_slowdown[m]": 1}, "writes were slowed down 1 times while it was looked at: memtables"),
        ({"pending_compaction_bytes_stop[m]": 1}, "writes were stopped 1 times while it was looked at: too much left"),
        ({"num_background_errors": 1}, "1 flushes or compactions failed while it was looked at"),
        ({"is_write_stopped": 1}, "writes are stopped"),
        ({"actual_delayed_write_rate": 4096}, "writes are slowed down to 4096 bytes/s"),
    ],
)
def test_writes_that_are_held_up_now_fail(change: dict[str, int], seen: str) -> None:
    with pytest.raises(UnmetError, match=seen):
        stalls.judge(GOOD, {**GOOD, **change}, {})


def test_a_counter_that_grows_between_the_two_looks_fails_alone(site: Site) -> None:
    site.resp["node1"].stalling = True
    assert "writes were stopped" in failing(site, "store.stalls").seen
