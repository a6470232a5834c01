"""A small `kvstrata bench keys`: the adapter stays bounded, its usage exact, and what is oldest goes first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kvstrata.bench import keys_run
from kvstrata.bench.keys_run import Plan, checks, run, table

KEYS = 10_000


@pytest.fixture(params=["redis", "kvrocks"])
def found(request: pytest.FixtureRequest, drive: Path) -> dict[str, Any]:
    binary = request.getfixturevalue(request.param)
    return run(Plan(request.param, binary, drive, KEYS, evict=1000, samples=100, seconds=90), print)


def test_ten_thousand_chunks_leave_the_adapter_small_exact_and_fair(found: dict[str, Any]) -> None:
    assert found["checks"] == dict.fromkeys(found["checks"], True)
    # A tenth of a KiB for each chunk would be seen.
    assert found["rss_after_bytes"] - found["rss_before_bytes"] < 16 << 20
    headers, lines = table([found])
    assert all(len(line) == len(headers) for line in lines)


def test_a_check_that_does_not_hold_is_told() -> None:
    seen = {
        "keys": 10,
        "chunk_bytes": 64,
        "lookups": [{"width": 1, "hits": True, "samples": 5, "found": 4}],
        "usage_then_bytes": 639,
        "scans_in_lookups": 1,
        "scans_in_eviction": 0,
        "walk_seen": 9,
        "walk_changed": 0,
        "evicted_chunks": 3,
        "used_after_bytes": 1,
        "left_chunks": 8,
        "oldest_left_as_expected": False,
        "rss_before_bytes": 0,
        "rss_after_bytes": keys_run.RSS_GROWTH_LIMIT,
    }
    assert set(checks(seen, 2).values()) == {False}
