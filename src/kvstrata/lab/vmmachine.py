"""QEMU processes: their command line, started by pid file, commanded by QMP, ended for certain."""

import json
import os
import shlex
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from kvstrata.lab import shell
from kvstrata.lab.errors import LabError
from kvstrata.lab.vmqmp import Qmp, QmpError
from kvstrata.lab.vmspec import MAX_DRIVES, VmSpec

MEMORY_MIB = 2048
CPUS = 2
PROGRAM = "qemu-system-x86_64"
# The serial number of every machine's root disk: it is part of the snapshot that all of them start from.
ROOT_SERIAL = "KVSROOT"
_POLL_S = 0.1


def hardware() -> list[str]:
    """Return what of the command line is the same for all machines: a snapshot fits this hardware only.

    Without KVM wherever it runs, so that every machine runs the same. Its ports for drives are there from the start,
    because a running machine gets drives but no ports.
    """
    argv = [PROGRAM, "-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35"]
    argv += ["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max,la57=off"]
    argv += ["-smp", str(CPUS), "-m", str(MEMORY_MIB), "-rtc", "base=utc"]
    argv += ["-device", f"virtio-blk-pci,drive=root,serial={ROOT_SERIAL},bootindex=0", "-device", "virtio-rng-pci"]
    argv += ["-device", "virtio-net-pci,netdev=net,mac=52:54:00:6b:76:73,romfile="]
    for port in range(MAX_DRIVES):
        place = f"addr={8 + port // 8:#x}.{port % 8},multifunction=on"
        argv += ["-device", f"pcie-root-port,id=rp{port},bus=pcie.0,chassis={port + 1},{place},io-reserve=0"]
    return argv


def argv(
    spec: VmSpec,
    *,
    memory: Path | None = None,
    nodes: Iterable[dict[str, Any]] = (),
    devices: Iterable[dict[str, Any]] = (),
) -> list[str]:
    """Return the command line of a machine that goes on from the snapshot `memory`, or boots its disk.

    `nodes` and `devices` are blockdev-add and device_add arguments of what is there from the start.
    """
    root_file = {"driver": "file", "filename": str(spec.disk), "cache": {"direct": False, "no-flush": True}}
    root = {"driver": "qcow2", "node-name": "root", "file": root_file, "discard": "unmap"}
    line = [*hardware(), "-name", f"kvstrata-{spec.name}", "-daemonize", "-pidfile", str(spec.pid_file)]
    line += ["-qmp", f"unix:{_escaped(spec.socket)},server=on,wait=off"]
    line += ["-chardev", f"file,id=console,path={_escaped(spec.console)}", "-serial", "chardev:console"]
    line += ["-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{spec.port}-:22"]
    for node in (root, *nodes):
        line += ["-blockdev", json.dumps(node)]
    for device in devices:
        line += ["-device", json.dumps(device)]
    if memory is not None:
        line += ["-incoming", f"exec:cat {shlex.quote(str(memory))}"]
    return line


def _escaped(path: Path) -> str:
    """QEMU's own way to have a comma in a value."""
    return str(path).replace(",", ",,")


def version() -> str:
    """Return what QEMU says of itself: a snapshot of one version is no snapshot for another."""
    return shell.run((PROGRAM, "--version")).splitlines()[0]


def pid(spec: VmSpec) -> int | None:
    """Return the process id of the machine, or None when it does not run.

    A pid file outlives its process, and the number may be another's by now: the command line tells.
    """
    try:
        number = int(spec.pid_file.read_text())
        line = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return number if str(spec.pid_file).encode() in line else None


def start(line: list[str]) -> None:
    """Start a machine with the command line of `argv`; LabError with QEMU's words when it does not start."""
    shell.run(line, timeout_s=120)


def await_running(spec: VmSpec, *, deadline: float) -> None:
    """Return when the machine runs, its snapshot restored; LabError when it does not by `deadline` (monotonic)."""
    status = "no answer"
    while time.monotonic() < deadline:
        if pid(spec) is None:
            raise LabError(f"{spec.name} ended while it started; its console: {spec.console}")
        try:
            with Qmp(spec.socket) as qmp:
                status = qmp.execute("query-status")["status"]
                if status == "paused":
                    # So it was saved, and so it comes back.
                    qmp.execute("cont")
                    continue
        except QmpError as error:
            status = str(error)
        if status == "running":
            return
        time.sleep(_POLL_S)
    raise LabError(f"{spec.name} did not start in time: {status}")


def stop(spec: VmSpec, *, patience_s: float = 10) -> bool:
    """End the machine without asking its system; return whether it ran. LabError when it survives SIGKILL."""
    number = pid(spec)
    if number is None:
        return False
    # It may hang up before it answers; what counts is whether it goes.
    with suppress(QmpError), Qmp(spec.socket, timeout_s=patience_s) as qmp:
        qmp.execute("quit")
    for signal_number in (None, signal.SIGTERM, signal.SIGKILL):
        if signal_number is not None and pid(spec) == number:
            os.kill(number, signal_number)
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if pid(spec) != number:
                return True
            time.sleep(_POLL_S)
    raise LabError(f"{spec.name} (process {number}) does not end")
