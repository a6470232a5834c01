"""Fixtures of the verifier's tests. Its fakes are in fakes/, with real sockets where a client is tested."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# The fakes are modules of their own, found from the repository's root.
sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.verify.fakes.resp import RespServer
from tests.verify.fakes.site import Site


@pytest.fixture
def resp_server() -> Iterator[RespServer]:
    with RespServer("secret-pw") as server:
        yield server


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path / "state") as running:
        yield running
