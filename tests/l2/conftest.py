"""Fixtures of the adapter's tests: a fleet of real stores."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

from tests.l2.stores import KINDS, KVROCKS, Store, start, stop

FLEET = 3


@pytest.fixture(scope="session", params=KINDS)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Store]]:
    """Three stores of one kind, for all tests."""
    kind = request.param
    if kind == "kvrocks" and not KVROCKS.exists():
        warnings.warn(f"NOT TESTED WITH KVROCKS: {KVROCKS} does not exist", stacklevel=1)
        pytest.skip(f"NOT TESTED WITH KVROCKS: {KVROCKS} does not exist")
    stores = start(kind, FLEET, tmp_path_factory.mktemp(kind))
    yield stores
    stop(stores)


@pytest.fixture
def stores(running: list[Store]) -> list[Store]:
    """Three empty stores."""
    for store in running:
        store.call(b"FLUSHALL")
    return running
