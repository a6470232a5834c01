"""Bring machines up and down, and say what was written to their drives."""

import json
import secrets
import shutil
import time
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path

from kvstrata.lab import drives, hostpackages, shell, vmdrives, vmimage, vmmachine, vmsnapshot
from kvstrata.lab.errors import LabError
from kvstrata.lab.lock import one_at_a_time
from kvstrata.lab.progress import step
from kvstrata.lab.sshaccess import Access, await_login
from kvstrata.lab.vmqmp import Qmp
from kvstrata.lab.vmspec import NAMES, VmSpec, vms_dir

RESTORE_DEADLINE_S = 90
_ADDRESS = "127.0.0.1"


def _lock() -> AbstractContextManager[None]:
    return one_at_a_time(vms_dir() / ".lock", "machine")


def _state_file(spec: VmSpec) -> Path:
    return spec.folder / "spec.json"


def access(name: str) -> Access:
    """Return how to log in to the machine: every machine admits the same key and has a host key of its own."""
    return Access(vms_dir(), port=VmSpec(name).port)


def running(name: str) -> VmSpec:
    """Return what the running machine is like; LabError when it does not run."""
    spec = VmSpec(name)
    if vmmachine.pid(spec) is None or not _state_file(spec).exists():
        raise LabError(f"{name} does not run: `kvstrata lab vm up {name}`")
    return VmSpec(**json.loads(_state_file(spec).read_text()))


def _know_hosts() -> None:
    """Write known_hosts from the host keys that the machines' folders hold."""
    keys = {name: VmSpec(name).folder / "host_key.pub" for name in NAMES}
    known = {name: path.read_text() for name, path in keys.items() if path.exists()}
    access(NAMES[0]).write_known_hosts(known, {name: f"[{_ADDRESS}]:{VmSpec(name).port}" for name in known})


def up(spec: VmSpec) -> bool:
    """Make the machine run; return whether anything had to be changed. LabError says what is wrong.

    One that runs is left as it is; one that ended by itself is made anew, with empty drives.
    """
    with _lock(), step(f"machine {spec.name}") as whole:
        # Without its state it was left half started.
        if vmmachine.pid(spec) is not None and _state_file(spec).exists():
            if running(spec.name) != spec:
                raise LabError(f"{spec.name} runs with other drives: `kvstrata lab vm down {spec.name}` first")
            await_login(access(spec.name), _ADDRESS, deadline=time.monotonic() + RESTORE_DEADLINE_S)
            whole.result = f"already up, nothing changed ({_ADDRESS}:{spec.port})"
            return False
        hostpackages.ensure_for_machines()
        ssh = access(spec.name)
        recipe = _recipe(ssh)
        vmmachine.stop(spec)
        if not any(vmmachine.pid(VmSpec(name)) for name in NAMES):
            vmimage.remove_others(recipe)
        vmimage.ensure(recipe)
        try:
            _start(spec, recipe, ssh)
        except LabError as error:
            tail = vmsnapshot.console_tail(spec)
            vmmachine.stop(spec)
            raise LabError(f"{error}\nThe machine's console ended with:\n{tail}") from error
        how = "booted" if spec.shared else "restored"
        whole.result = f"{how} with {spec.drives} drives ({_ADDRESS}:{spec.port})"
    return True


def _recipe(ssh: Access) -> vmimage.VmRecipe:
    """Return the image's recipe, making the keys that go into it."""
    login_key = ssh.ensure_key().read_text()
    first_host_key = Access(vms_dir() / "first-host-key")
    first_host_key.ensure_key()
    return vmimage.host_recipe(login_key, first_host_key.key.read_text())


def _start(spec: VmSpec, recipe: vmimage.VmRecipe, ssh: Access) -> None:
    _renew_folder(spec)
    if spec.shared:
        vmsnapshot.make_overlay(recipe.disk, spec.disk, "raw")
        memory, timeout_s = None, vmsnapshot.BOOT_DEADLINE_S
    else:
        snapshot = vmsnapshot.ensure(recipe, spec, ssh)
        _renew_folder(spec)
        vmsnapshot.make_overlay(snapshot.disk, spec.disk, "qcow2")
        memory, timeout_s = snapshot.memory, RESTORE_DEADLINE_S
    every_drive = [*vmdrives.drives(spec), *vmdrives.shared(spec)]
    for drive in every_drive:
        drives.ensure_image(drive.image, spec.drive_gib)
    deadline = time.monotonic() + timeout_s
    cold = (map(vmdrives.block_node, every_drive), vmdrives.cold_devices(spec)) if spec.shared else ((), ())
    vmmachine.start(vmmachine.argv(spec, memory=memory, nodes=cold[0], devices=cold[1]))
    vmmachine.await_running(spec, deadline=deadline)
    if not spec.shared:
        with Qmp(spec.socket) as qmp:
            for node, device in vmdrives.plugs(spec):
                qmp.send({"execute": "blockdev-add", "arguments": node})
                qmp.send({"execute": "device_add", "arguments": device})
    await_login(ssh, _ADDRESS, deadline=deadline)
    _identify(spec, ssh)
    # With its own host key now.
    await_login(ssh, _ADDRESS, deadline=deadline)
    _state_file(spec).write_text(json.dumps(asdict(spec)) + "\n")


def _renew_folder(spec: VmSpec) -> None:
    """Empty the machine's folder, but for the host key that machines have before they get their own."""
    shutil.rmtree(spec.folder, ignore_errors=True)
    spec.folder.mkdir(parents=True)
    public = Access(vms_dir() / "first-host-key").ensure_key()
    (spec.folder / "host_key.pub").write_text(public.read_text())
    _know_hosts()


def _identify(spec: VmSpec, ssh: Access) -> None:
    """Give the machine what a snapshot cannot: the time, random numbers, a name, a machine-id and a host key.

    Awaits the names of its drives first: one login, for each takes a second there.
    """
    names = " ".join(drive.by_id for drive in vmdrives.drives(spec))
    wait = f"for name in {names}; do until test -b $name; do sleep 0.1; done; done; udevadm settle"
    identify = f"lab-identity {spec.name} {time.time():.3f} {secrets.token_hex(64)}"
    key = shell.run((*ssh.argv(_ADDRESS), f"{wait}; {identify}"), timeout_s=RESTORE_DEADLINE_S)
    (spec.folder / "host_key.pub").write_text(key)
    _know_hosts()


def down(name: str) -> bool:
    """End the machine and remove its disk, its drives and its host key; return whether there was any.

    The image, the snapshot and the key stay: they are the cache.
    """
    spec = VmSpec(name)
    with _lock(), step(f"machine {name}") as whole:
        there = spec.folder.exists()
        vmmachine.stop(spec)
        if there:
            shutil.rmtree(spec.folder)
            _know_hosts()
        whole.result = "down" if there else "not up, nothing changed"
    return there


def status() -> list[tuple[str, str, str, str]]:
    """Return (machine, address, state, SSH) of every machine that can be."""
    rows = []
    for name in NAMES:
        spec = VmSpec(name)
        address = f"{_ADDRESS}:{spec.port}"
        if vmmachine.pid(spec) is None:
            rows.append((name, address, "ended" if spec.folder.exists() else "absent", "-"))
        else:
            rows.append((name, address, "running", "ok" if access(name).login_works(_ADDRESS) else "no login"))
    return rows


def written(name: str) -> list[vmdrives.Written]:
    """Return what was written to the running machine's drives. What its system still holds back is not in there."""
    spec = running(name)
    with Qmp(spec.socket) as qmp:
        statistics = qmp.execute("query-blockstats")
    return vmdrives.written(spec, statistics)
