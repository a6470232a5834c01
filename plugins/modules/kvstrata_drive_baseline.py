#!/usr/bin/python
"""Measure how fast each drive reads, once, and keep it as a local fact. Nothing is ever written to a drive."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kvstrata_fio import SCHEMA, command, identity, parse, written_data
from ansible.module_utils.kvstrata_text import place

DOCUMENTATION = """
module: kvstrata_drive_baseline
short_description: Measure the drives with fio, for reading only, into a local fact
description: >-
  Reads each drive with fio, one drive after the other, in three patterns. Reads the files on it where they hold a GiB
  at least, else the bare device, whose blocks need never have been written: drives answer for those faster than they
  can read, and the fact says so in C(on_written_data).
options:
  drives: {description: The drives as kvstrata_drive returns them., type: dict, required: true}
  measure:
    description: C(once) measures a drive that has no baseline yet, C(always) each, C(never) none.
    type: str
    choices: [once, always, never]
    default: once
  seconds: {description: Seconds of each of the three patterns., type: int, default: 5}
  path: {description: The local fact., type: path, default: /etc/ansible/facts.d/kvstrata_drives.fact}
"""


def read_fact(path: str) -> dict[str, Any]:
    """Return the drives of the fact; none where there is no fact, or one of another schema."""
    try:
        with open(path) as stream:
            document = json.load(stream)
    except (FileNotFoundError, ValueError):
        return {}
    return document.get("drives", {}) if document.get("schema") == SCHEMA else {}


def described(drive: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the fact says of a drive besides its baseline."""
    devices = [
        {
            **{key: device[key] for key in ("path", "serial", "model", "wwid", "lba_bytes", "numa_node")},
            "size_bytes": device["size"],
        }
        for device in drive["devices"]
    ]
    return {"devices": devices, "fstype": drive["fstype"], "uuid": drive["uuid"]}


def is_due(measure: str, old: Mapping[str, Any], new: dict[str, Any]) -> bool:
    """Tell whether a drive is to be measured: it never was, it is another one, or it always is."""
    if measure != "once":
        return measure == "always"
    return not old.get("baseline") or identity(dict(old)) != identity(new)


@contextlib.contextmanager
def held(paths: Sequence[str]) -> Iterator[list[str]]:
    """Hold files open, and give names for fio that stay valid when a store removes the files meanwhile."""
    descriptors: list[int] = []
    try:
        for path in paths:
            with contextlib.suppress(OSError):
                descriptors.append(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC))
        yield [f"/proc/{os.getpid()}/fd/{descriptor}" for descriptor in descriptors]
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def measured_of(module: AnsibleModule, name: str, drive: Mapping[str, Any], seconds: int) -> dict[str, Any]:
    """Return the baseline of one drive."""
    data = written_data(drive["mount"])
    usage = os.statvfs(drive["mount"])
    with held(data.paths if data.enough else []) as names:
        paths = names or [drive["source"]]
        code, out, error = module.run_command(command(paths, seconds))
    if code:
        module.fail_json(msg=f"fio failed on drive {name}: {(error or out).strip()[-400:]}")
    try:
        result = parse(out)
    except ValueError as problem:
        module.fail_json(msg=f"drive {name}: {problem}")
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": seconds,
        "on_written_data": bool(names),
        "read_from_bytes": data.total if names else sum(device["size"] for device in drive["devices"]),
        "used_bytes": (usage.f_blocks - usage.f_bfree) * usage.f_frsize,
        **result,
    }


def write_fact(module: AnsibleModule, path: str, drives: Mapping[str, Any]) -> None:
    """Put the fact in place, readable for everyone; not executable, or Ansible would run it."""
    place(module, path, json.dumps({"schema": SCHEMA, "drives": drives}, indent=1, sort_keys=True) + "\n", 0o644)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "drives": {"type": "dict", "required": True},
            "measure": {"type": "str", "choices": ["once", "always", "never"], "default": "once"},
            "seconds": {"type": "int", "default": 5},
            "path": {"type": "path", "default": "/etc/ansible/facts.d/kvstrata_drives.fact"},
        },
        supports_check_mode=True,
    )
    want = module.params
    if want["measure"] == "never":
        module.exit_json(changed=False, measured=[], msg="NOT MEASURED: nvme_baseline is never")
    old = read_fact(want["path"])
    new: dict[str, Any] = {}
    measured: list[str] = []
    for name, drive in want["drives"].items():
        if module.check_mode and drive["uuid"] is None:
            measured.append(name)  # blank as yet: it is measured when it has a file system
            continue
        new[name] = described(drive)
        if not is_due(want["measure"], old.get(name, {}), new[name]):
            new[name]["baseline"] = old[name]["baseline"]
            continue
        measured.append(name)
        if not module.check_mode:
            new[name]["baseline"] = measured_of(module, name, drive, want["seconds"])
            # After each, so that a run that is interrupted has those that it measured.
            write_fact(
                module, want["path"], {**{key: value for key, value in old.items() if key in want["drives"]}, **new}
            )
    if new != old and not module.check_mode:
        write_fact(module, want["path"], new)
    module.exit_json(changed=bool(measured) or new != old, measured=measured, drives=new)


if __name__ == "__main__":
    main()
