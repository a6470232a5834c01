#!/usr/bin/python
"""Make the file systems on drives: the one module that writes to a drive, and only what the guard lets it."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible.module_utils import kvstrata_mdconf as mdconf
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kvstrata_blockdev import Host
from ansible.module_utils.kvstrata_drive_plan import Step, steps
from ansible.module_utils.kvstrata_drive_tools import ToolError, Tools
from ansible.module_utils.kvstrata_guard import Drive, DriveVerdict, Refusal, Verdict, judge, survey
from ansible.module_utils.kvstrata_lba import WANTED_BYTES, Choice, LbaError, check_alone, choose, namespaces
from ansible.module_utils.kvstrata_text import place, read

DOCUMENTATION = """
module: kvstrata_drive
short_description: Make file systems on the drives that may have one
description: >-
  Judges all drives of the host, and writes nothing if one of them is refused. Each drive is judged once more right
  before it is written to. A drive that has our file system already is left as it is.
options:
  drives:
    description: All drives of the host, as the filter kvstrata_with_mount describes them.
    type: list
    elements: dict
    required: true
  wipe_tokens: {description: Tokens by drive; see docs/drives.md., type: dict, default: {}}
  lba_format:
    description: Whether drives that get a file system are given blocks of 4096 bytes before.
    type: str
    choices: [keep, best4096]
    default: keep
"""

LOCK = "/run/kvstrata-drive.lock"
STAMP = "/var/lib/kvstrata/mdadm-in-initramfs"


class RefusedError(Exception):
    """Something may not be done; nothing was written since the last look."""

    def __init__(self, message: str, refusals: Sequence[Refusal] = ()) -> None:
        """Remember the guard's reasons, where it was the guard."""
        super().__init__(message)
        self.refusals = [dataclasses.asdict(refusal) for refusal in refusals]


@contextlib.contextmanager
def alone(path: str = LOCK) -> Iterator[None]:
    """Be the only one of these modules that is at work on this host."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise RefusedError("another run is at work on the drives of this host; wait until it ends") from error
    finally:
        os.close(descriptor)


class Drives:
    """The drives of the host: what the guard says of them, and the work on them."""

    def __init__(self, drives: Sequence[Drive], tokens: Mapping[str, Any], host: Host, tools: Tools) -> None:
        """Look at all drives once."""
        self.drives, self.tokens, self.host, self.tools = drives, tokens, host, tools
        self.notes: list[str] = []
        self.made: list[str] = []
        self.seen = survey(drives, host)
        self.verdict = self.judge()

    def judge(self) -> Verdict:
        """Judge what was seen last; RefusedError, with every reason, if one drive is."""
        verdict = judge(self.drives, self.seen, self.tokens)
        if verdict.refusals:
            lines = [
                f"  - drive {each.drive}, {each.device}: {each.seen}; allowed: {each.allowed}"
                + (f" (token: {each.token})" if each.token else "")
                for each in verdict.refusals
            ]
            written = f"of the others were made already: {', '.join(self.made)}" if self.made else "none was written to"
            raise RefusedError("\n".join([f"drives are refused; {written}:", *lines]), verdict.refusals)
        return verdict

    def look_again(self, drive: Drive) -> DriveVerdict:
        """Look at one drive again, judge all, and return what it is now."""
        self.seen.update(survey([drive], self.host))
        self.verdict = self.judge()
        return self.verdict.drives[drive.name]

    def choose(self, drive: Drive) -> dict[str, Choice]:
        """Return what is to become of the LBA formats of a drive; RefusedError where its controller has more on it."""
        choices = {}
        for path in drive.devices:
            device = self.seen[path]
            controller = self.tools.controller_of(device.kernel)
            if controller is None:
                self.notes.append(f"{path} keeps its blocks of {device.lba_bytes} bytes: it is no NVMe namespace")
                continue
            id_ns, id_ctrl = self.tools.identify(controller, device.nsid)
            choice = choose(id_ns, id_ctrl)
            if choice.index is None:
                self.notes.append(f"{path} keeps its blocks of {device.lba_bytes} bytes: {choice.why}")
                continue
            listed = self.tools.list_namespaces(controller)
            try:
                check_alone(path, device.nsid, None if listed is None else namespaces(listed), id_ctrl)
            except LbaError as error:
                raise RefusedError(f"drive {drive.name}: {error}; nothing was written to any drive") from error
            choices[path] = choice
        return choices

    def plan(self, lba_format: str) -> dict[str, list[Step]]:
        """Return what is to be done to each drive, by its name."""
        planned = {}
        for drive in self.drives:
            verdict = self.verdict.drives[drive.name]
            fresh = verdict.state in ("blank", "wipe")
            choices = self.choose(drive) if fresh and lba_format == "best4096" else {}
            if not fresh and lba_format == "best4096":
                sizes = {path: self.seen[path].lba_bytes for path in drive.devices}
                small = [path for path in drive.devices if sizes[path] < WANTED_BYTES]
                self.notes += [
                    f"{path} keeps its blocks of {sizes[path]} bytes: it has our file system" for path in small
                ]
            planned[drive.name] = steps(drive, verdict, choices)
        return planned

    def carry_out(self, drive: Drive, planned: Sequence[Step]) -> None:
        """Do to one drive what was planned, unless it changed since."""
        before = (self.verdict.drives[drive.name], [self.seen[path].token for path in drive.devices])
        verdict = self.look_again(drive)
        if (verdict, [self.seen[path].token for path in drive.devices]) != before:
            raise RefusedError(f"drive {drive.name} changed while this ran, and was not written to")
        array = ""
        for step in planned:
            if step.kind == "assemble":
                self.tools.assemble_array(drive.name, verdict.array, [self.real(path) for path in drive.devices])
            elif step.kind == "erase":
                self.tools.erase_signatures(self.real(step.device))
            elif step.kind == "format":
                self.format(step)
            elif step.kind == "array":
                array = self.tools.make_array(drive.name, [self.real(path) for path in drive.devices])
            else:
                target = array or (step.device if drive.array else self.real(step.device))
                self.tools.make_filesystem(target, drive.fstype, drive.label)
        self.check_done(drive)

    def check_done(self, drive: Drive) -> None:
        """Look at a drive that was written to; an array that was only assembled may lack its file system still."""
        now = self.look_again(drive)
        if now.state == "own" and now.source and not now.uuid:
            self.tools.make_filesystem(now.source, drive.fstype, drive.label)
            now = self.look_again(drive)
        if now.state != "own" or not now.uuid:
            raise ToolError(f"drive {drive.name} was made, and is {now.state} without its file system")
        self.made.append(drive.name)

    def format(self, step: Step) -> None:
        """Change the LBA format of one namespace."""
        device = self.seen[step.device]
        controller = self.tools.controller_of(device.kernel)
        if controller is None:
            raise ToolError(f"the controller of {step.device} is gone")
        self.tools.format_namespace(self.real(step.device), device.kernel, controller, device.nsid, step.lba_format)

    def real(self, path: str) -> str:
        """Return the device behind a name, which must still be the one that was judged: a link can be turned."""
        target = os.path.realpath(path)
        if self.host.number(target) != self.seen[path].number:
            raise RefusedError(f"{path} is another device now than the one that was judged, and was not written to")
        return target


def keep_arrays(module: AnsibleModule, drives: Drives, planned: Mapping[str, Sequence[Step]]) -> tuple[list[str], Any]:
    """Have mdadm.conf and every initramfs know our arrays; return what was done, and the difference in the file."""
    conf = mdconf.place()
    before = read(conf) or ""
    verdicts = {drive.name: drives.verdict.drives[drive.name] for drive in drives.drives if drive.array}
    arrays = {name: mdconf.spelled(verdict.array) for name, verdict in verdicts.items() if verdict.array}
    coming = [name for name in verdicts if name not in arrays and planned[name]]
    after = mdconf.merged(before, arrays, [drive.name for drive in drives.drives if not drive.array])
    actions, diff = [], None
    if after != before:
        diff = place(module, conf, after, 0o644)
        actions.append(f"write our arrays into {conf}")
    actions += [f"write the array of drive {name} into {conf}" for name in coming]
    digest = mdconf.digest(after)
    if coming or digest != (read(STAMP) or mdconf.digest("")).strip():
        image = mdconf.image_of(os.uname().release)
        if image is None:
            drives.notes.append(f"NOT UPDATED: no initramfs of kernel {os.uname().release} was found")
        else:
            actions.append("update the initramfs of every kernel, so that the arrays have their names at boot")
            if not module.check_mode:
                drives.tools.update_initramfs()
        if not module.check_mode:
            place(module, STAMP, f"{digest}\n", 0o644)
    return actions, diff


def described(drives: Drives, planned: Mapping[str, Sequence[Step]], *, done: bool) -> dict[str, Any]:
    """Return source, uuid, fstype, mount, array, devices and state of each drive; null what is yet to be made."""
    result = {}
    for drive in drives.drives:
        verdict = drives.verdict.drives[drive.name]
        there = done or not planned[drive.name]
        result[drive.name] = {
            "state": verdict.state,
            "source": verdict.source if there else None,
            "uuid": verdict.uuid if there else None,
            "fstype": drive.fstype,
            "mount": drive.mount,
            "array": drive.array,
            "devices": list(verdict.devices),
        }
    return result


def work(module: AnsibleModule) -> dict[str, Any]:
    """Judge, plan, and unless this is check mode, do; return the module's result."""
    tools = Tools()
    wanted = [Drive.read(entry) for entry in module.params["drives"]]
    drives = Drives(wanted, module.params["wipe_tokens"], Host(), tools)
    lba_format = module.params["lba_format"]
    if module.check_mode and lba_format != "keep" and not shutil.which("nvme"):
        drives.notes.append("NOT CHECKED in check mode: LBA formats, for nvme-cli is not installed yet")
        lba_format = "keep"
    planned = drives.plan(lba_format)
    actions = [step.text for each in planned.values() for step in each]
    if not module.check_mode:
        for drive in wanted:
            if planned[drive.name]:
                drives.carry_out(drive, planned[drive.name])
    more, diff = keep_arrays(module, drives, planned)
    return {
        "changed": bool(actions or more),
        "actions": actions + more,
        "notes": drives.notes,
        "drives": described(drives, planned, done=not module.check_mode),
        **({"diff": diff} if diff else {}),
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "drives": {"type": "list", "elements": "dict", "required": True},
            "wipe_tokens": {"type": "dict", "default": {}, "no_log": False},
            "lba_format": {"type": "str", "choices": ["keep", "best4096"], "default": "keep"},
        },
        supports_check_mode=True,
    )
    try:
        with alone():
            result = work(module)
    except RefusedError as refused:
        module.fail_json(msg=str(refused), refusals=refused.refusals)
    except ToolError as error:
        module.fail_json(msg=f"{error}. What was done before it stands; the next run goes on from there")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
