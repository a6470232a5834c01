"""A site of two nodes with a replica each and one router, all of them fakes on real sockets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drain.fakes import FakeSite


@pytest.fixture
def site(tmp_path: Path) -> Iterator[FakeSite]:
    with FakeSite(tmp_path) as made:
        yield made
