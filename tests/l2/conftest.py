"""Fixtures of the adapter's tests: a fleet of real stores."""

from __future__ import annotations

import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path

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


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that is its own CA, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    crt, key = folder / "crt.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", "/CN=store", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(crt)),
        ],
        check=True,
        capture_output=True,
    )
    return crt, key


@pytest.fixture
def stores(running: list[Store]) -> list[Store]:
    """Three empty stores."""
    for store in running:
        store.call(b"FLUSHALL")
    return running
