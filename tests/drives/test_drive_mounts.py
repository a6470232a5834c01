"""kvstrata_drive_mounts: what it decides, from the units there are, what systemd says and what is mounted."""

from __future__ import annotations

from typing import Any

import kvstrata_drive_mounts as mounts  # type: ignore[import-not-found]
import pytest

POINT = "/var/lib/kvstrata/drives/d0"
UNIT = "var-lib-kvstrata-drives-d0.mount"
TEXT = "[Unit]\nDescription=Drive d0 of the SSD tier\n[Mount]\nWhat=/dev/disk/by-uuid/new\n"
ENTRY = {"name": "d0", "mount": POINT, "unit": UNIT, "text": TEXT, "source": "/dev/a"}
ENABLED = {UNIT: {"UnitFileState": "enabled", "ActiveState": "active"}}
NUMBERS = {"/dev/a": "259:0"}


def mountinfo(number: str, point: str = POINT) -> str:
    return f"22 1 0:21 / / rw - ext4 /dev/root rw\n30 22 {number} / {point} rw,noatime shared:1 - xfs /dev/x rw\n"


def plan(
    entry: dict[str, Any] = ENTRY, *, text: str = TEXT, states: dict[str, Any] = ENABLED, info: str = ""
) -> mounts.Work:
    return mounts.plan([entry], {UNIT: text}, states, info, NUMBERS)


def test_a_new_drive_gets_its_unit_and_is_mounted() -> None:
    work = plan(text="", states={UNIT: {"UnitFileState": ""}})
    assert work.write == {f"/etc/systemd/system/{UNIT}": TEXT}
    assert (work.stop, work.enable, work.start, work.remount) == ([], [UNIT], [UNIT], [])


def test_a_drive_that_is_mounted_as_it_should_be_needs_nothing() -> None:
    assert plan(info=mountinfo("259:0")) == mounts.Work()


def test_a_drive_that_is_not_mounted_is_mounted() -> None:
    work = plan()
    assert (work.write, work.start) == ({}, [UNIT])


def test_changed_options_are_a_remount() -> None:
    work = plan(text=TEXT + "Options=old\n", info=mountinfo("259:0"))
    assert (list(work.write), work.stop, work.start, work.remount) == ([f"/etc/systemd/system/{UNIT}"], [], [], [UNIT])


def test_a_replaced_drive_gives_up_its_mount_point_before_the_new_one_is_mounted() -> None:
    work = plan(text=TEXT.replace("new", "old"), info=mountinfo("259:9"))
    assert (work.stop, work.start, work.remount, work.problems) == ([UNIT], [UNIT], [], [])
    assert "drive d0 is another one" in work.actions[0]


def test_a_mount_that_is_not_ours_is_not_unmounted() -> None:
    work = plan(text="", info=mountinfo("259:9"))
    assert (work.stop, work.start) == ([], [])
    assert "something else is mounted there" in work.problems[0]


def test_a_drive_without_a_file_system_yet_is_announced_in_check_mode() -> None:
    work = plan({**ENTRY, "source": None}, text="")
    assert f"mount drive d0 at {POINT}" in work.actions


def test_of_mounts_on_top_of_each_other_the_uppermost_counts() -> None:
    assert mounts.mounted_at(POINT, mountinfo("259:1") + mountinfo("259:2")) == "259:2"
    assert mounts.mounted_at("/elsewhere", mountinfo("259:1")) is None


@pytest.mark.parametrize(
    ("state", "started", "enabled"),
    [
        ({"UnitFileState": "disabled", "ActiveState": "inactive"}, ["t.timer"], ["t.timer"]),
        ({"UnitFileState": "enabled", "ActiveState": "inactive"}, ["t.timer"], []),
        ({"UnitFileState": "enabled", "ActiveState": "active"}, [], []),
    ],
)
def test_a_timer_is_enabled_and_started_where_it_is_not(
    state: dict[str, str], started: list[str], enabled: list[str]
) -> None:
    work = mounts.Work()
    mounts.plan_timers(work, {"t.timer": state}, ["t.timer"], [])
    assert (work.start, work.enable) == (started, enabled)


def test_a_timer_that_is_not_wanted_is_stopped_once() -> None:
    running, idle = mounts.Work(), mounts.Work()
    mounts.plan_timers(running, {"t.timer": {"UnitFileState": "enabled", "ActiveState": "active"}}, [], ["t.timer"])
    mounts.plan_timers(idle, {"t.timer": {"UnitFileState": "disabled", "ActiveState": "inactive"}}, [], ["t.timer"])
    assert (running.disable, idle.disable) == (["t.timer"], [])


def test_a_drive_that_left_the_inventory_is_named() -> None:
    paths = [f"/etc/systemd/system/var-lib-kvstrata-drives-{name}.mount" for name in ("d0", "d1", "old_one")]
    assert mounts.left_alone(paths, ["d0"]) == ["d1", "old_one"]


def test_what_systemd_says_of_several_units_is_told_apart() -> None:
    assert mounts.parse_show("Id=a\nActiveState=active\n\nId=b\nActiveState=failed\n") == {
        "a": {"Id": "a", "ActiveState": "active"},
        "b": {"Id": "b", "ActiveState": "failed"},
    }
