"""What the benchmark's tests share: a real server, and runs without one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstrata.bench.procfs import mount_of
from kvstrata.bench.study import Setup
from kvstrata.paths import cache_dir
from tests.bench.samples import SETUP


@pytest.fixture
def redis() -> Path:
    """The redis-server of this machine; without one the integration cannot be tested, and that is no pass."""
    found = shutil.which("redis-server")
    if not found:
        pytest.fail("no redis-server on PATH: apt-get install redis-server (and stop its service)")
    return Path(found)


@pytest.fixture
def kvrocks() -> Path:
    """The Kvrocks in the cache folder, or a skip that says what was not tested."""
    binary = cache_dir() / "bin" / "kvrocks"
    if not binary.is_file():
        pytest.skip(f"NO KVROCKS at {binary}: the benchmark was tested with redis-server alone")
    return binary


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Path]:
    """A folder on a drive, for cold reads; the tests' own where it is on one."""
    if not mount_of(tmp_path).in_memory:
        yield tmp_path
        return
    folder = cache_dir() / "tests-bench"
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def setup() -> Setup:
    return SETUP
