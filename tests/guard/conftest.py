"""Loop devices for the guard's tests; where they cannot be had, it is said."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstrata.lab.guardfuzz.loops import Loop
from tests.guard.real import Bench

TOOLS = ("losetup", "wipefs", "blkid", "mount", "unshare", "mkfs.xfs", "mkfs.ext4", "mkswap")
LOOP_MIB = 64


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists() or missing:
        why = f"missing: {', '.join(missing)}" if missing else "loop devices need root"
        pytest.skip(f"NOT CHECKED: the guard on real block devices ({why})")
    made = Bench(tmp_path, [Loop(tmp_path / f"{index}.img", LOOP_MIB << 20) for index in range(2)])
    try:
        yield made
    finally:
        made.clear()
