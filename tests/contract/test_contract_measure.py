"""Which CPUs point 5 leaves to the router."""

from __future__ import annotations

import os

import pytest

from kvstrata.contract.measure import _left_alone


@pytest.fixture
def cpus() -> set[int]:
    found = os.sched_getaffinity(0)
    if len(found) < 2:
        pytest.skip("NOT TESTED: one CPU cannot be left alone")
    return found


def test_client_and_engines_leave_the_routers_cpus_and_come_back(cpus: set[int]) -> None:
    first = min(cpus)
    with _left_alone((first,)):
        assert os.sched_getaffinity(0) == cpus - {first}
    assert os.sched_getaffinity(0) == cpus


def test_where_the_router_has_all_cpus_nobody_is_moved(cpus: set[int]) -> None:
    with _left_alone(sorted(cpus)):
        assert os.sched_getaffinity(0) == cpus
    with _left_alone(()):
        assert os.sched_getaffinity(0) == cpus
