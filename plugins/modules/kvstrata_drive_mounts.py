#!/usr/bin/python
"""Have the drives mounted by the units given, all in one task; a drive that was replaced gives up its mount point."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kvstrata_text import place, read

DOCUMENTATION = """
module: kvstrata_drive_mounts
short_description: Mount drives by systemd units
description: >-
  Writes the units, enables and starts them, and remounts where only options changed. Where another file system is
  mounted by our unit, because the drive was replaced, the unit is stopped first, and with it what needs the mount.
  A unit of ours whose drive is not among those given is left alone, and returned in C(left_alone).
options:
  mounts:
    description: >-
      One dict for each drive with name, mount, unit, text (of the unit) and source, the device that must be mounted
      there; null in check mode, when it has no file system yet.
    type: list
    elements: dict
    required: true
  units: {description: "Further units to write, as dicts with name and text.", type: list, elements: dict, default: []}
  timers: {description: Timers that must be enabled and running., type: list, elements: str, default: []}
  idle_timers: {description: Timers that must be neither., type: list, elements: str, default: []}
  owner: {description: Owner of the root of each file system., type: str, default: root}
  group: {description: Group of it., type: str, default: root}
  mode: {description: Mode of it., type: str, default: "0755"}
"""

UNITS = "/etc/systemd/system"
MARK = "Drive {name} of the SSD tier"
MOUNTINFO = "/proc/self/mountinfo"
JOURNAL_LINES = 20


def mounted_at(point: str, mountinfo: str) -> str | None:
    """Return major:minor of what is mounted at a point, the uppermost where several are, or None."""
    # proc(5): the third field is the device, the fifth the mount point.
    found = [fields[2] for fields in map(str.split, mountinfo.splitlines()) if fields[4] == point]
    return found[-1] if found else None


def number_of(device: str) -> str:
    """Return major:minor of a block device."""
    number = os.stat(device).st_rdev
    return f"{os.major(number)}:{os.minor(number)}"


def parse_show(out: str) -> dict[str, dict[str, str]]:
    """Return what `systemctl show` says of several units, by Id."""
    blocks = [dict(line.split("=", 1) for line in block.splitlines()) for block in out.strip().split("\n\n")]
    return {block["Id"]: block for block in blocks if "Id" in block}


def left_alone(paths: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """Return the names of drives that have a unit of ours and are not wanted."""
    found = [re.fullmatch(r"var-lib-kvstrata-drives-(\w+)\.mount", os.path.basename(path)) for path in paths]
    return sorted({match.group(1) for match in found if match} - set(wanted))


@dataclass
class Work:
    """What is to be done, found out before anything is."""

    write: dict[str, str] = field(default_factory=dict)
    """Path -> text."""
    stop: list[str] = field(default_factory=list)
    enable: list[str] = field(default_factory=list)
    disable: list[str] = field(default_factory=list)
    start: list[str] = field(default_factory=list)
    remount: list[str] = field(default_factory=list)
    actions: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    stale: bool = False
    """Whether systemd has older unit files in mind than there are, since a run that was interrupted."""


def plan(
    mounts: Sequence[dict[str, Any]],
    texts: dict[str, str],
    states: dict[str, dict[str, str]],
    mountinfo: str,
    numbers: dict[str, str],
) -> Work:
    """Decide what to do with each mount.

    Args:
        mounts: as the module is given them.
        texts: the text of each unit file as it is, by unit.
        states: systemd's view of each unit.
        mountinfo: text of /proc/self/mountinfo.
        numbers: major:minor of each source.
    """
    work = Work()
    for entry in mounts:
        name, unit, point = entry["name"], entry["unit"], entry["mount"]
        seen = mounted_at(point, mountinfo)
        right = bool(seen) and seen == numbers.get(entry["source"] or "")
        ours = MARK.format(name=name) in texts[unit]
        if seen and not right and not ours:
            work.problems.append(f"{point} is the mount point of drive {name}, and something else is mounted there")
            continue
        if seen and not right:
            work.stop.append(unit)
            work.actions.append(f"unmount from {point} what is there now: drive {name} is another one")
        if texts[unit] != entry["text"]:
            work.write[f"{UNITS}/{unit}"] = entry["text"]
            work.actions.append(f"write {unit}")
            if right:
                work.remount.append(unit)
        if states.get(unit, {}).get("UnitFileState") != "enabled":
            work.enable.append(unit)
            work.actions.append(f"enable {unit}")
        if not right:
            work.start.append(unit)
            work.actions.append(f"mount drive {name} at {point}")
    return work


def plan_timers(work: Work, states: dict[str, dict[str, str]], timers: Sequence[str], idle: Sequence[str]) -> None:
    """Add to the work what the timers need."""
    for timer in timers:
        if states.get(timer, {}).get("UnitFileState") != "enabled":
            work.enable.append(timer)
            work.actions.append(f"enable {timer}")
        if states.get(timer, {}).get("ActiveState") != "active":
            work.start.append(timer)
            work.actions.append(f"start {timer}")
    for timer in idle:
        state = states.get(timer, {})
        if state.get("UnitFileState") == "enabled" or state.get("ActiveState") == "active":
            work.disable.append(timer)
            work.actions.append(f"stop and disable {timer}")


class Node:
    """The node's systemd, and its unit files."""

    def __init__(self, module: AnsibleModule) -> None:
        """Remember the module."""
        self.module = module

    def show(self, units: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return what systemd says of the units."""
        properties = "--property=Id,ActiveState,UnitFileState,NeedDaemonReload"
        _, out, _ = self.module.run_command(["systemctl", "show", properties, *units], check_rc=True)
        return parse_show(out)

    def reload(self) -> None:
        """Have systemd read its unit files again."""
        self.module.run_command(["systemctl", "daemon-reload"], check_rc=True)

    def do(self, verb: str, units: Sequence[str]) -> None:
        """Have systemd do something with units; fail with their journal."""
        if not units:
            return
        code, _, error = self.module.run_command(["systemctl", verb, *units])
        if code:
            journal = ["journalctl", *(f"--unit={unit}" for unit in units), "-n", str(JOURNAL_LINES), "-o", "cat"]
            _, lines, _ = self.module.run_command([*journal, "--no-pager"])
            self.module.fail_json(
                msg=f"systemctl {verb} {' '.join(units)} failed: {error.strip()}", journal=lines.splitlines()
            )


def own(module: AnsibleModule, mounts: Sequence[dict[str, Any]]) -> list[str]:
    """Give the root of each file system its owner and mode; return what changed. Nothing where none is mounted yet."""
    actions = []
    for entry in mounts:
        if mounted_at(entry["mount"], (read(MOUNTINFO) or "")) is None or entry["source"] is None:
            continue
        changed = module.set_owner_if_different(entry["mount"], module.params["owner"], False)
        changed = module.set_group_if_different(entry["mount"], module.params["group"], changed)
        changed = module.set_mode_if_different(entry["mount"], module.params["mode"], changed)
        # A new file system has no label of SELinux, where there is SELinux.
        changed = module.set_default_selinux_context(entry["mount"], changed)
        if changed:
            actions.append(f"set owner and mode of {entry['mount']}")
    return actions


def carry_out(node: Node, work: Work) -> None:
    """Do what was planned, in the order that systemd needs."""
    node.do("stop", work.stop)
    for path, text in work.write.items():
        place(node.module, path, text, 0o644)
    if work.write or work.stale:
        node.reload()
    node.do("disable", ["--now", *work.disable] if work.disable else [])
    node.do("enable", work.enable)
    node.do("start", work.start)
    # systemd.mount(5): a reload remounts with the options of the unit.
    node.do("reload", work.remount)


def check_mounted(module: AnsibleModule, mounts: Sequence[dict[str, Any]]) -> None:
    """Fail unless each drive, and no other, is mounted where it belongs."""
    for entry in mounts:
        seen, wanted = mounted_at(entry["mount"], (read(MOUNTINFO) or "")), number_of(entry["source"])
        if seen != wanted:
            module.fail_json(
                msg=f"{entry['unit']} was started, and {entry['mount']} is {seen or 'not mounted'} and not {wanted} "
                f"({entry['source']})"
            )


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "mounts": {"type": "list", "elements": "dict", "required": True},
            "units": {"type": "list", "elements": "dict", "default": []},
            "timers": {"type": "list", "elements": "str", "default": []},
            "idle_timers": {"type": "list", "elements": "str", "default": []},
            "owner": {"type": "str", "default": "root"},
            "group": {"type": "str", "default": "root"},
            "mode": {"type": "str", "default": "0755"},
        },
        supports_check_mode=True,
    )
    want = module.params
    node, mounts = Node(module), want["mounts"]
    units = [entry["unit"] for entry in mounts]
    texts = {unit: read(f"{UNITS}/{unit}") or "" for unit in units}
    timers = want["timers"] + want["idle_timers"]
    states = node.show(units + timers) if units + timers else {}
    numbers = {entry["source"]: number_of(entry["source"]) for entry in mounts if entry["source"]}
    work = plan(mounts, texts, states, (read(MOUNTINFO) or ""), numbers)
    for unit in want["units"]:
        if read(f"{UNITS}/{unit['name']}") != unit["text"]:
            work.write[f"{UNITS}/{unit['name']}"] = unit["text"]
            work.actions.append(f"write {unit['name']}")
    plan_timers(work, states, want["timers"], want["idle_timers"])
    if work.problems:
        module.fail_json(msg="; ".join(work.problems) + ". Allowed: a mount point that nothing else uses")
    diff = [
        {"before": read(path) or "", "after": text, "before_header": path, "after_header": path}
        for path, text in work.write.items()
    ]
    work.stale = any(state.get("NeedDaemonReload") == "yes" for state in states.values())
    if not module.check_mode:
        carry_out(node, work)
        check_mounted(module, mounts)
    actions = work.actions + own(module, mounts)
    module.exit_json(
        changed=bool(actions),
        actions=actions,
        left_alone=left_alone(glob.glob(f"{UNITS}/var-lib-kvstrata-drives-*.mount"), [m["name"] for m in mounts]),
        diff=diff,
    )


if __name__ == "__main__":
    main()
