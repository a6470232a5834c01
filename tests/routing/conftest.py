"""The nodes' environment, in which the mocked engines and both routers run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from kvstrata.artifacts import environment, wheelhouse
from kvstrata.artifacts.lock import LockError, read_lock
from kvstrata.bench.serving import local_host
from kvstrata.bench.serving.local_host import Environment
from kvstrata.paths import PROJECT, cache_dir


@pytest.fixture(scope="session")
def node_environment() -> Environment:
    """The environment with ai-dynamo and vllm-router; without it nothing here can be tested, and that is no pass."""
    try:
        python: Path = environment.ensure(read_lock(PROJECT / "artifacts.lock.yml").wheelhouse("cpu"), cache_dir())[0]
    except (LockError, wheelhouse.DownloadError, subprocess.CalledProcessError) as error:
        pytest.fail(f"no environment with Dynamo (kvstrata artifacts environment cpu): {error}")
    found, _ = local_host.any_environment(python)
    if missing := {"ai-dynamo", "vllm-router"} - set(found.versions):
        pytest.fail(f"{python} has no {', '.join(sorted(missing))}: the routing contract was NOT tested")
    return found
