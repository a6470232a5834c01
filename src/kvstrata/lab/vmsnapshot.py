"""A booted machine, kept: machines go on from it in seconds instead of booting for a minute.

The snapshot is two files beside the disk: what the boot wrote (an overlay over the disk) and the memory. Machines
have overlays of their own over the first, and read the second once. It has no drives: QEMU can save no machine that
has an NVMe controller.
"""

import hashlib
import json
import shlex
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from kvstrata.lab import shell, vmmachine
from kvstrata.lab.errors import LabError
from kvstrata.lab.progress import Step, step
from kvstrata.lab.sshaccess import Access, await_login
from kvstrata.lab.vmimage import VmRecipe
from kvstrata.lab.vmqmp import Qmp
from kvstrata.lab.vmspec import VmSpec

BOOT_DEADLINE_S = 300
_POLL_S = 0.2
# What a first module of Ansible would load, loaded already: emulated, that takes seconds.
_WARM_UP = "python3 -c 'import apt, json, platform, subprocess, tempfile, zipfile'"


@dataclass(frozen=True)
class Snapshot:
    """The two files of a booted machine."""

    disk: Path
    memory: Path


def make_overlay(base: Path, overlay: Path, kind: str) -> None:
    """Make a disk that shows `base` (`raw` or `qcow2`) and keeps what is written to itself."""
    shell.run(("qemu-img", "create", "-q", "-f", "qcow2", "-F", kind, "-b", str(base), str(overlay)))


def locate(recipe: VmRecipe) -> Snapshot:
    """Return where the snapshot of the recipe's disk on this machine's QEMU is, or will be."""
    fits = json.dumps([vmmachine.version(), vmmachine.hardware(), _WARM_UP])
    folder = recipe.folder / f"booted-{hashlib.sha256(fits.encode()).hexdigest()[:12]}"
    return Snapshot(folder / "disk.qcow2", folder / "memory")


def ensure(recipe: VmRecipe, spec: VmSpec, ssh: Access) -> Snapshot:
    """Boot the recipe's disk once as machine `spec`, which must not run, and keep it; LabError if it does not boot."""
    with step("machine snapshot") as current:
        snapshot = locate(recipe)
        if snapshot.memory.exists():
            current.result = "cached"
            return snapshot
        current.note("booting the machine once; this takes a minute or two")
        _bake(recipe, spec, ssh, snapshot, current)
        current.result = f"made ({snapshot.memory.stat().st_size / 2**20:.0f} MiB of memory)"
    return snapshot


def _bake(recipe: VmRecipe, spec: VmSpec, ssh: Access, snapshot: Snapshot, current: Step) -> None:
    with tempfile.TemporaryDirectory(dir=recipe.folder, prefix=".booting-") as scratch_name:
        made = Path(scratch_name) / "made"
        made.mkdir()
        spec.folder.mkdir(parents=True, exist_ok=True)
        make_overlay(recipe.disk, spec.disk, "raw")
        try:
            vmmachine.start(vmmachine.argv(spec))
            await_login(ssh, "127.0.0.1", deadline=time.monotonic() + BOOT_DEADLINE_S)
            current.note("it takes logins; waiting for the end of the boot")
            state = settle(ssh)
            if state != "running":
                raise LabError(f"the machine's systemd is {state}")
            shell.run((*ssh.argv("127.0.0.1"), f"{_WARM_UP}; sync"))
            _save_memory(spec, made / "memory")
        except LabError as error:
            raise LabError(f"{error}\nThe machine's console ended with:\n{console_tail(spec)}") from error
        finally:
            vmmachine.stop(spec)
        spec.disk.rename(made / "disk.qcow2")
        made.rename(snapshot.memory.parent)


def settle(ssh: Access) -> str:
    """Wait for the machine's boot to end and return systemd's word for how it went, with the units that failed."""
    ask = "systemctl is-system-running --wait; systemctl list-units --failed --plain --no-legend --no-pager"
    answer = shell.run((*ssh.argv("127.0.0.1"), ask), timeout_s=BOOT_DEADLINE_S).split("\n")
    failed = [line.split()[0] for line in answer[1:] if line.strip()]
    return " ".join([answer[0], *failed])


def _save_memory(spec: VmSpec, target: Path) -> None:
    with Qmp(spec.socket) as qmp:
        qmp.execute("stop")
        # Nobody else needs the bandwidth; the default is a network's.
        qmp.execute("migrate-set-parameters", max_bandwidth=2**40)
        qmp.execute("migrate", uri=f"exec:cat >{shlex.quote(str(target))}")
        deadline = time.monotonic() + BOOT_DEADLINE_S
        while (status := qmp.execute("query-migrate").get("status")) != "completed":
            if status in ("failed", "cancelled") or time.monotonic() > deadline:
                raise LabError(f"the machine's memory could not be saved: {status}")
            time.sleep(_POLL_S)


def console_tail(spec: VmSpec) -> str:
    """Return the last lines of the machine's console."""
    if not spec.console.exists():
        return "nothing"
    return "\n".join(spec.console.read_text(errors="replace").splitlines()[-10:]) or "nothing"
