#!/usr/bin/python
"""Set kernel settings now and for every boot; refuse all that cannot be before the first is written."""

from __future__ import annotations

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kvstrata_text import place, remove
from ansible.module_utils.kvstrata_tunables import (
    COUNTERPARTS,
    RefusedError,
    Setting,
    contradictions,
    current,
    overrides,
    read,
    sysctl_path,
    sysctl_setting,
    sysfs_setting,
)

DOCUMENTATION = """
module: kvstrata_kernel
short_description: Set sysctls and values below /sys, now and for every boot
description: >-
  Everything is looked at before anything is written, and every reason to refuse is told at once. A value that the
  kernel does not take has those written before it put back. Sysctls go to a file of sysctl.d, values below /sys to
  one of tmpfiles.d; with nothing wanted the files are removed, and what is in force stays until the next boot.
options:
  sysctls:
    description: The sysctls wanted, as the filter kvstrata_sysctls describes them.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: Its name, as "vm.swappiness"., type: str, required: true}
      value: {description: Its value., type: str, required: true}
      most_of_memory: {description: Share of the memory that bounds the value in bytes., type: float}
      mib: {description: Instead of a value, MiB to be had in huge pages., type: int}
      where_present: {description: Whether a kernel without it is no error., type: bool, default: false}
  sysfs:
    description: The values wanted below /sys.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: What a user calls it., type: str, required: true}
      glob: {description: Its files., type: str, required: true}
      value: {description: Its value., type: str, required: true}
  sysctl_file: {description: File of sysctl.d., type: path, default: /etc/sysctl.d/90-kvstrata.conf}
  boot_file: {description: File of tmpfiles.d., type: path, default: /etc/tmpfiles.d/kvstrata.conf}
  root: {description: Where the file systems are; another one only in tests., type: path, default: /}
"""

HEAD = "# Written by Ansible, role host. What is changed here by hand is lost at its next run.\n"
SYSCTL = {
    "name": {"type": "str", "required": True},
    "value": {"type": "str", "required": True},
    "most_of_memory": {"type": "float"},
    "mib": {"type": "int"},
    "where_present": {"type": "bool", "default": False},
}
SYSFS = {name: {"type": "str", "required": True} for name in ("name", "glob", "value")}


def look(params: dict[str, Any]) -> tuple[list[Setting], list[Setting], list[str], list[RefusedError]]:
    """Return the sysctls, the values below /sys, the names of what this kernel has not, and the refusals."""
    root = params["root"]
    refusals: list[RefusedError] = []
    absent = []
    found: dict[str, list[Setting]] = {"sysctls": [], "sysfs": []}
    for kind, make in (("sysctls", sysctl_setting), ("sysfs", sysfs_setting)):
        for entry in params[kind]:
            try:
                setting = make(entry, root)
            except RefusedError as refusal:
                refusals.append(refusal)
                continue
            if setting is None:
                absent.append(entry["name"])
            else:
                found[kind].append(setting)
    wanted = {setting.name: setting.value for setting in found["sysctls"]}
    refusals += contradictions(wanted)
    refusals += overrides(root, os.path.basename(params["sysctl_file"]), wanted)
    return found["sysctls"], found["sysfs"], absent, refusals


def write(path: str, value: str) -> None:
    """Have the kernel take a value; OSError where it does not."""
    with open(path, "w") as stream:
        stream.write(value)


def put_back(done: list[tuple[str, str, str]]) -> str:
    """Write the values of before, the last first; return what to say of it.

    Args:
        done: file written, value before, and its counterpart's file with "=" and value, for a value 0 of vm.dirty_bytes
            means that its ratio is in force, and cannot be written.
    """
    failed = []
    for path, before, counterpart in reversed(done):
        if before == "0" and counterpart:
            path, _, before = counterpart.partition("=")
        try:
            write(path, before)
        except OSError as error:
            failed.append(f"{path} ({error.strerror}), which was {before!r}")
    return f"; NOT PUT BACK: {', '.join(failed)}" if failed else ""


def apply(settings: list[Setting], root: str) -> list[str]:
    """Write what differs; return what the kernel granted only in part.

    Raises:
        RefusedError: if the kernel refused a value; what was written before it is put back.
    """
    done: list[tuple[str, str, str]] = []
    short = []
    for setting in settings:
        for path in setting.differing():
            before = current(path)
            other = COUNTERPARTS.get(setting.name)
            counterpart = f"{sysctl_path(root, other)}={read(sysctl_path(root, other))}" if other else ""
            try:
                write(path, setting.value)
                reason = ""
            except OSError as error:
                reason = error.strerror or str(error)
            seen = current(path)
            if seen != before:
                done.append((path, before, counterpart))
            if setting.partly and not reason and seen != setting.value:
                short.append(f"{setting.name}: {seen} of {setting.value}")
            elif reason or seen != setting.value:
                why = reason or f"it made {seen!r} of it"
                allowed = f"what the kernel takes ({path}: {why}); it was {before!r}"
                raise RefusedError(setting.name, setting.value, allowed + put_back(done))
    return short


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "sysctls": {"type": "list", "elements": "dict", "default": [], "options": SYSCTL},
            "sysfs": {"type": "list", "elements": "dict", "default": [], "options": SYSFS},
            "sysctl_file": {"type": "path", "default": "/etc/sysctl.d/90-kvstrata.conf"},
            "boot_file": {"type": "path", "default": "/etc/tmpfiles.d/kvstrata.conf"},
            "root": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )
    params = module.params
    sysctls, sysfs, absent, refusals = look(params)
    if refusals:
        module.fail_json(msg="refused, and nothing was set: " + ". ".join(str(each) for each in refusals))
    settings = [*sysctls, *sysfs]
    live = [(path, current(path), each.value) for each in settings for path in each.differing()]
    short: list[str] = []
    if not module.check_mode:
        try:
            short = apply(settings, params["root"])
        except RefusedError as refusal:
            module.fail_json(msg=f"refused, and what was set before it was put back: {refusal}")
        # What the kernel granted in part, and no more than before, is no change.
        live = [(path, before, current(path)) for path, before, _ in live if current(path) != before]
    boot = [f"w {entry['glob']} - - - - {entry['value']}\n" for entry in params["sysfs"] if entry["name"] not in absent]
    texts = {
        params["sysctl_file"]: "".join(f"{each.name} = {each.value}\n" for each in sysctls),
        params["boot_file"]: "".join(boot),
    }
    files = [place(module, path, HEAD + text, 0o644) if text else remove(module, path) for path, text in texts.items()]
    diff = [change for change in files if change is not None]
    diff += [
        {"before": f"{before}\n", "after": f"{after}\n", "before_header": path, "after_header": path}
        for path, before, after in live
    ]
    names = sorted({each.name for each in settings if any(path in each.paths for path, _, _ in live)})
    module.exit_json(changed=bool(diff), set=names, absent=absent, short=short, diff=diff)


if __name__ == "__main__":
    main()
