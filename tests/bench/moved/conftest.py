"""Two nodes that share their stores, behind a router that can be told to forget one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.moved.fakes import FakeSite


@pytest.fixture
def site(tmp_path: Path) -> Iterator[FakeSite]:
    with FakeSite(tmp_path) as made:
        yield made
