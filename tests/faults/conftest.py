"""The nodes' environment, and the servers that the faults are made on."""

from __future__ import annotations

import os
import shutil
import subprocess
import warnings
from pathlib import Path

import pytest

from kvstrata.artifacts import environment, wheelhouse
from kvstrata.artifacts.lock import LockError, read_lock
from kvstrata.paths import PROJECT, cache_dir

ENGINES = ("kvrocks", "redis")
KVROCKS = cache_dir() / "bin" / "kvrocks"


@pytest.fixture(scope="session")
def node_python() -> Path:
    """The interpreter with LMCache; without it nothing here can be tested, and that is no pass."""
    try:
        return environment.ensure(read_lock(PROJECT / "artifacts.lock.yml").wheelhouse("cpu"), cache_dir())[0]
    except (LockError, wheelhouse.DownloadError, subprocess.CalledProcessError) as error:
        pytest.fail(f"no environment with LMCache (kvstrata artifacts environment cpu): {error}")


@pytest.fixture(scope="session")
def node_environ() -> dict[str, str]:
    """The environment variables of what runs there."""
    return {**os.environ, "PYTHONPATH": str(PROJECT / "src"), "LMCACHE_LOG_LEVEL": "ERROR"}


@pytest.fixture(scope="session", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine at hand. Redis always; a Kvrocks that is missing is said loudly."""
    name = str(request.param)
    if name == "redis" and not shutil.which("redis-server"):
        pytest.fail("no redis-server on PATH: apt-get install redis-server (and stop its service)")
    if name == "kvrocks" and not KVROCKS.is_file():
        text = f"NO KVROCKS at {KVROCKS}: no fault was tested on it"
        warnings.warn(text, stacklevel=1)
        pytest.skip(text)
    return name
