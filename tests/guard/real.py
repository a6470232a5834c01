"""Real loop devices, named by id in a /dev of the test's own, and proof that looking at them writes nothing."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kvstrata.lab.guardfuzz.code import kvstrata_blockhost, kvstrata_guard
from kvstrata.lab.guardfuzz.loops import Loop, command
from tests.guard.drives import entry


def needs(tool: str) -> None:
    """Skip a test, and say so, where a tool that makes what it looks at is missing."""
    if shutil.which(tool) is None:
        pytest.skip(f"NOT CHECKED: {tool} is not there")


@dataclass
class Bench:
    """Two drives, d0 and d1."""

    folder: Path
    loops: list[Loop]
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make the files and the folder that stands for /dev."""
        for loop in self.loops:
            loop.blank()
        (self.folder / "dev" / "disk" / "by-id").mkdir(parents=True)

    def attach(self, index: int = 0, **options: Any) -> Loop:
        """Attach a drive and name it by id."""
        loop = self.loops[index].attach(**options)
        self.name(f"nvme-test-{index}", loop.device)
        return loop

    def name(self, name: str, target: str) -> str:
        """Name a device by id; return that name."""
        link = self.folder / "dev" / "disk" / "by-id" / name
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        return f"/dev/disk/by-id/{name}"

    def mounted(self, loop: Loop, point: str, *options: str) -> None:
        """Mount a drive read-only in this mount namespace until the test ends."""
        folder = self.folder / point
        folder.mkdir(exist_ok=True)
        command(["mount", "-o", ",".join(("ro", *options)), loop.device, str(folder)])
        loop.undo_later(["umount", str(folder)])

    def elsewhere(self, script: str) -> None:
        """Run a shell in a mount namespace of its own; it lives, after having done the script, until the test ends."""
        argv = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", f"{script}\necho ready\nread _"]
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

    def holding(self, loop: Loop, mode: str) -> None:
        """Have another process hold the device open until the test ends."""
        with Path(loop.device).open(mode) as stream:
            process = subprocess.Popen(["sleep", "300"], stdin=stream, text=True)
        self.processes.append(process)

    def host(self) -> Any:
        """This machine, with the /dev of the test for names by id; all else in it is the machine's."""
        for node in Path("/dev").iterdir():
            link = self.folder / "dev" / node.name
            if node.name != "disk" and not link.is_symlink():
                link.symlink_to(node)
        return kvstrata_blockhost.Host(dev=str(self.folder / "dev"))

    def entries(self, count: int = 1, **fields: Any) -> list[dict[str, Any]]:
        """The first drives as entries of kvstrata_drives."""
        return [entry(f"/dev/disk/by-id/nvme-test-{index}", f"d{index}", **fields) for index in range(count)]

    def judge(self, *entries: dict[str, Any], tokens: dict[str, Any] | None = None) -> Any:
        """Look and judge; fail if anything was written to any of the drives meanwhile."""
        drives = [kvstrata_guard.Drive.read(each) for each in entries or self.entries()]
        attached = [loop for loop in self.loops if loop.device]
        before = [(loop.digest(), loop.written()) for loop in attached]
        verdict = kvstrata_guard.judge(drives, kvstrata_guard.survey(drives, self.host()), tokens or {})
        assert [(loop.digest(), loop.written()) for loop in attached] == before
        return verdict

    def clear(self) -> None:
        """End processes, unmount and detach."""
        for process in self.processes:
            process.terminate()
            process.communicate()
        for loop in self.loops:
            loop.detach()
