"""kvstrata_drive on real block devices: what it makes, and that a refusal or check mode writes not one byte."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kvstrata.lab.guardfuzz.loops import Loop, command
from kvstrata.paths import PROJECT

TOOLS = ("losetup", "wipefs", "blkid", "unshare", "mkfs.xfs", "mkfs.ext4")
# Not less: mkfs.xfs makes no smaller file system.
LOOP_MIB = 320
# A module takes only names below /dev/disk/by-id. It gets some in a mount namespace of its own, seen by nobody else.
RUN = """
import json, os, pathlib, subprocess, sys
from tests.plugins.modules import run_module
names, args, check_mode = json.load(sys.stdin)
pathlib.Path("/dev/disk").mkdir(exist_ok=True)
subprocess.run(["mount", "-t", "tmpfs", "none", "/dev/disk"], check=True)
os.mkdir("/dev/disk/by-id")
for name, device in names.items():
    os.symlink(device, f"/dev/disk/by-id/{name}")
print(json.dumps(run_module("kvstrata_drive", args, check_mode=check_mode)))
"""


@dataclass
class Bench:
    """Two drives, the first for XFS and the second for ext4."""

    loops: list[Loop]

    def run(self, *, check_mode: bool = False, **args: Any) -> dict[str, Any]:
        drives = [
            {
                "name": f"d{index}",
                "device": f"/dev/disk/by-id/nvme-test-{index}",
                "fstype": fstype,
                "mount": f"/m{index}",
            }
            for index, fstype in enumerate(("xfs", "ext4"))
        ]
        names = {f"nvme-test-{index}": loop.device for index, loop in enumerate(self.loops)}
        done = subprocess.run(
            ["unshare", "--mount", "--propagation=private", sys.executable, "-c", RUN],
            input=json.dumps([names, {"drives": drives, **args}, check_mode]),
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            capture_output=True,
            text=True,
            check=True,
        )
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    def state(self) -> list[tuple[str, tuple[int, ...]]]:
        """Digests of all bytes, and how often each device was written to."""
        return [(loop.digest(), loop.written()) for loop in self.loops]

    def probe(self, index: int) -> dict[str, str]:
        out = command(["blkid", "--probe", "--output", "export", self.loops[index].device])
        return dict(line.split("=", 1) for line in out.splitlines() if "=" in line)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists() or missing:
        why = f"missing: {', '.join(missing)}" if missing else "loop devices need root"
        pytest.skip(f"NOT CHECKED: kvstrata_drive on real block devices ({why})")
    made = Bench([Loop(tmp_path / f"{index}.img", LOOP_MIB << 20) for index in range(2)])
    try:
        for loop in made.loops:
            loop.blank()
            loop.attach()
        yield made
    finally:
        for loop in made.loops:
            loop.detach()


def test_blank_drives_get_their_file_systems_and_a_second_run_writes_nothing(bench: Bench) -> None:
    made = bench.run()
    assert made["changed"] is True
    assert [bench.probe(index)["TYPE"] for index in range(2)] == ["xfs", "ext4"]
    assert [bench.probe(index)["LABEL"] for index in range(2)] == ["kvs-d0", "kvs-d1"]
    assert [drive["uuid"] for drive in made["drives"].values()] == [bench.probe(index)["UUID"] for index in range(2)]
    before = bench.state()
    again = bench.run()
    assert (again["changed"], again["actions"]) == (False, [])
    assert bench.state() == before


def test_check_mode_says_what_a_run_then_does_and_writes_nothing(bench: Bench) -> None:
    before = bench.state()
    said = bench.run(check_mode=True)
    assert bench.state() == before
    assert said["changed"] is True
    assert bench.run()["actions"] == said["actions"]


def test_one_drive_with_data_keeps_both_from_being_written(bench: Bench) -> None:
    command(["mkfs.ext4", "-q", "-F", "-L", "theirs", bench.loops[1].device])
    before = bench.state()
    refused = bench.run()
    assert refused["failed"]
    assert [(each["drive"], each["reason"]) for each in refused["refusals"]] == [("d1", "filesystem")]
    assert bench.state() == before


def test_only_the_right_token_in_the_right_state_has_a_drive_wiped(bench: Bench) -> None:
    theirs = bench.loops[1].device
    command(["mkfs.ext4", "-q", "-F", "-L", "theirs", theirs])
    stale = bench.run()["refusals"][0]["token"]
    command(["tune2fs", "-L", "still", theirs])
    before = bench.state()
    for token in (stale, "0" * 16, ""):
        assert bench.run(wipe_tokens={"d1": token})["failed"]
    # The right one, but for another drive.
    right = bench.run()["refusals"][0]["token"]
    assert bench.run(wipe_tokens={"d0": right})["failed"]
    assert bench.state() == before
    assert bench.run(wipe_tokens={"d1": right})["changed"] is True
    assert bench.probe(1)["LABEL"] == "kvs-d1"
    assert bench.run(wipe_tokens={"d1": right})["changed"] is False


def test_a_drive_that_somebody_holds_is_not_written_even_with_its_token(bench: Bench) -> None:
    theirs = bench.loops[1].device
    command(["mkfs.ext4", "-q", "-F", theirs])
    token = bench.run()["refusals"][0]["token"]
    descriptor = os.open(theirs, os.O_RDONLY | os.O_EXCL)
    try:
        before = bench.state()
        refused = bench.run(wipe_tokens={"d1": token})
        assert "busy" in {each["reason"] for each in refused["refusals"]}
        assert bench.state() == before
    finally:
        os.close(descriptor)
