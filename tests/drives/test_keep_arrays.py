"""kvstrata_drive keeps mdadm.conf and every initramfs up to date with our arrays, and does neither twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kvstrata_drive  # type: ignore[import-not-found]
import pytest
from ansible.module_utils.kvstrata_guard import Drive, judge

from tests.drives.samples import ARRAY_UUID, assembled, device, filesystem, path

RAID = Drive("d0", (path(0), path(1)), array=True)
SINGLE = Drive("d0", (path(0),))
STEP = object()


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of /etc, /boot and /var/lib, with an initramfs."""

    def place(module: Any, file: str, text: str, mode: int) -> dict[str, str]:
        if not module.check_mode:
            Path(file).write_text(text)
        return {"after": text}

    monkeypatch.setattr(kvstrata_drive.mdconf, "place", lambda: str(tmp_path / "mdadm.conf"))
    monkeypatch.setattr(kvstrata_drive.mdconf, "image_of", lambda kernel: str(tmp_path / "initrd"))
    monkeypatch.setattr(kvstrata_drive, "STAMP", str(tmp_path / "stamp"))
    monkeypatch.setattr(kvstrata_drive, "place", place)
    return tmp_path


class Drives:
    """What keep_arrays uses of kvstrata_drive.Drives."""

    def __init__(self, drives: Sequence[Drive]) -> None:
        self.drives = drives
        self.notes: list[str] = []
        self.updated = 0
        self.tools = SimpleNamespace(update_initramfs=self.update)
        seen = {path(index): assembled(index, filesystem()) for index in range(2)}
        if drives == [SINGLE]:
            seen = {path(0): device(0, content=filesystem())}
        self.verdict = judge(drives, seen, {})

    def update(self) -> None:
        self.updated += 1


def keep(drives: Sequence[Drive], *, coming: bool = False, check_mode: bool = False) -> tuple[Drives, list[str]]:
    at_work = Drives(drives)
    if coming:
        at_work.verdict = judge(drives, {path(index): device(index) for index in range(2)}, {})
    planned = {drive.name: [STEP] if coming else [] for drive in drives}
    actions, _ = kvstrata_drive.keep_arrays(SimpleNamespace(check_mode=check_mode), at_work, planned)
    return at_work, actions


def test_an_array_comes_into_mdadm_conf_and_into_the_initramfs_once(node: Path) -> None:
    first, said = keep([RAID])
    again, nothing = keep([RAID])
    assert kvstrata_drive.mdconf.spelled(ARRAY_UUID) in (node / "mdadm.conf").read_text()
    assert (first.updated, len(said)) == (1, 2)
    assert (again.updated, nothing) == (0, [])


def test_single_drives_touch_neither(node: Path) -> None:
    at_work, actions = keep([SINGLE])
    assert (at_work.updated, actions) == (0, [])
    assert list(node.iterdir()) == []


def test_a_run_that_ended_before_the_initramfs_is_made_good_by_the_next(node: Path) -> None:
    keep([RAID])
    (node / "stamp").unlink()
    at_work, actions = keep([RAID])
    assert at_work.updated == 1
    assert [action.split()[0] for action in actions] == ["update"]


def test_an_initramfs_that_fails_is_tried_again(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Drives) -> None:
        raise kvstrata_drive.ToolError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(Drives, "update", fail)
        with pytest.raises(kvstrata_drive.ToolError):
            keep([RAID])
    assert keep([RAID])[0].updated == 1


def test_check_mode_announces_the_array_that_is_yet_to_be_made_and_writes_nothing(node: Path) -> None:
    at_work, actions = keep([RAID], coming=True, check_mode=True)
    assert [action.split()[0] for action in actions] == ["write", "update"]
    assert at_work.updated == 0
    assert list(node.iterdir()) == []


def test_a_machine_without_an_initramfs_is_told_so(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvstrata_drive.mdconf, "image_of", lambda kernel: None)
    at_work, _ = keep([RAID])
    assert at_work.updated == 0
    assert at_work.notes[0].startswith("NOT UPDATED: no initramfs of kernel")
