"""What a node's package manager says of the driver's packages: dpkg and apt, or rpm and dnf; nothing is changed.

Runs on the nodes: Python 3.9, the standard library alone. The parsers take text, and are tested on it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import struct
import time
from collections.abc import Sequence
from typing import Any, Optional

from ansible.module_utils.kvstrata_gpuprobe import Host

OF_INTEREST = re.compile(
    r".*nvidia.*|.*nvlsm.*|libnvsdm.*|cuda-(drivers.*|keyring)|libcuda1|libcudadebugger1|libnvcuvid1|dkms"
    r"|linux-(image|headers|modules)-.*|kernel(-core|-devel.*|-headers|-modules.*)?|infiniband-diags"
)
DPKG_FORMAT = "${Package}\t${db:Status-Abbrev}\t${Version}\n"
RPM_FORMAT = "%{NAME}\t%{EPOCHNUM}:%{VERSION}-%{RELEASE}\n"
LOCKS = (
    "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/lock",
    "var/cache/apt/archives/lock",
    "var/lib/apt/lists/lock",
    "var/lib/rpm/.rpm.lock",
)
DNF_PIDS = ("var/lib/dnf/rpmdb_lock.pid", "var/cache/dnf/metadata_lock.pid")
VERSIONLOCK = "etc/dnf/plugins/versionlock.list"
MODULE_STREAM = "etc/dnf/modules.d/nvidia-driver.module"
OWN = "etc/kvstrata/nvidia_driver.json"
# The second letter of dpkg's status, after what is wanted. Pending triggers are nothing to worry about.
DPKG_STATES = {"H": "half-installed", "U": "unpacked, not configured", "F": "half-configured"}
# struct flock, where the C library lays it out with 64-bit offsets: x86_64 and aarch64.
FLOCK = "hhqqi4x"
POLL_S = 1.0


def packages(host: Host) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Return version and hold of every installed package of interest, and the packages of any kind that are not whole.

    dpkg finishes nothing else before those; rpm's transactions leave none.
    """
    status, text = host.run(["dpkg-query", "--show", "--showformat", DPKG_FORMAT])
    if status != 127:
        return parse_dpkg(text), parse_broken(text)
    _, text = host.run(["rpm", "--query", "--all", "--queryformat", RPM_FORMAT])
    return parse_rpm(text, host.read(VERSIONLOCK)), {}


def parse_dpkg(text: str) -> dict[str, dict[str, Any]]:
    """Return the installed packages of `DPKG_FORMAT` lines."""
    found = {}
    for name, state, version in _rows(text, 3):
        if state[1:2] == "i" and OF_INTEREST.fullmatch(name):
            found[name] = {"version": version, "held": state[0] == "h"}
    return found


def parse_rpm(text: str, versionlock: str) -> dict[str, dict[str, Any]]:
    """Return the same of `RPM_FORMAT` lines; kernels are there several times, and the last one counts."""
    found = {}
    for name, version in _rows(text, 2):
        if OF_INTEREST.fullmatch(name):
            found[name] = {"version": version.removeprefix("0:"), "held": is_locked(name, versionlock)}
    return found


def is_locked(name: str, versionlock: str) -> bool:
    """Tell whether a line of versionlock.list, as name-0:1.2-3.*, is about the package."""
    pattern = re.compile(rf"{re.escape(name)}-(\d+:)?\d.*")
    return any(pattern.fullmatch(line.strip()) for line in versionlock.splitlines())


def parse_broken(text: str) -> dict[str, str]:
    """Return the packages of `DPKG_FORMAT` lines that are not whole, and what is wrong with each."""
    found = {}
    for name, state, _ in _rows(text, 3):
        wrong = DPKG_STATES.get(state[1:2], "")
        if state[2:3] == "R":
            wrong = "needs to be installed again"
        if wrong:
            found[name] = wrong
    return found


def interrupted(host: Host) -> bool:
    """Tell whether dpkg was interrupted: its journal has files then, and apt refuses to do anything."""
    folder = host.path("var/lib/dpkg/updates")
    return os.path.isdir(folder) and any(name.isdigit() for name in os.listdir(folder))


def lock_holder(host: Host, patience_s: float) -> Optional[dict[str, Any]]:
    """Return who holds a lock of the package manager, or None once it is free; waits so long for that."""
    deadline = time.monotonic() + patience_s
    while True:
        holder = _holder(host)
        if holder is None or time.monotonic() >= deadline:
            return holder
        # The kernel tells nobody when somebody else's lock ends.
        time.sleep(min(POLL_S, max(deadline - time.monotonic(), 0)))


def _holder(host: Host) -> Optional[dict[str, Any]]:
    for name in LOCKS:
        pid = owner_of_lock(host.path(name))
        if pid:
            return _described(host, name, pid)
    for name in DNF_PIDS:
        text = host.read(name)
        if text.isdigit() and os.path.isdir("/proc/" + text):
            return _described(host, name, int(text))
    return None


def owner_of_lock(path: str) -> int:
    """Return the process that holds a POSIX lock on the file, 0 for none; takes no lock itself."""
    try:
        with open(path, "rb") as stream:
            question = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, _, _, _, pid = struct.unpack(FLOCK, fcntl.fcntl(stream, fcntl.F_GETLK, question))
    except OSError:
        return 0
    return pid if kind != fcntl.F_UNLCK else 0


def _described(host: Host, name: str, pid: int) -> dict[str, Any]:
    # Processes are those of the machine, whatever tree is looked at.
    proc = Host(host.run)
    unit = re.search(r"/([^/\n]+\.(?:service|scope))(?:/|$)", proc.read(f"proc/{pid}/cgroup"), re.MULTILINE)
    return {
        "file": "/" + name,
        "pid": pid,
        "process": proc.read(f"proc/{pid}/comm") or "a process that is not visible here",
        "unit": unit.group(1) if unit else "",
    }


def own(host: Host) -> Optional[dict[str, Any]]:
    """Return what an earlier run of the role left: the version, and the packages that it put on hold."""
    text = host.read(OWN)
    try:
        state = json.loads(text) if text else None
    except ValueError:
        return None
    return state if isinstance(state, dict) and "holds" in state else None


def module_stream(host: Host) -> str:
    """Return the enabled stream of the dnf module nvidia-driver, or nothing."""
    fields = dict(re.findall(r"^(\w+)[ \t]*=[ \t]*(.*)$", host.read(MODULE_STREAM), re.MULTILINE))
    return fields.get("stream", "") if fields.get("state") == "enabled" else ""


def candidates(host: Host, names: Sequence[str]) -> dict[str, list[str]]:
    """Return the versions of each package that the package manager could install, from its lists as they are."""
    status, text = host.run(["apt-cache", "madison", *names])
    if status != 127:
        return parse_madison(text, names)
    # rpm's names may end in a kernel's version: dnf takes that for one, so it is asked for whatever provides it.
    form = "%{name}\t%{evr}\n"
    return {name: _provided(host.run(["dnf", "--quiet", "repoquery", "--qf", form, name])[1]) for name in names}


def parse_madison(text: str, names: Sequence[str]) -> dict[str, list[str]]:
    """Return the versions in lines as "  name | version | source", each once, in their order."""
    found: dict[str, list[str]] = {name: [] for name in names}
    for line in text.splitlines():
        parts = [part.strip() for part in line.split("|")]
        if len(parts) == 3 and parts[0] in found and parts[1] not in found[parts[0]]:
            found[parts[0]].append(parts[1])
    return found


def _provided(text: str) -> list[str]:
    return list(dict.fromkeys(version for _, version in _rows(text, 2)))


def _rows(text: str, width: int) -> list[list[str]]:
    rows = [line.split("\t") for line in text.splitlines()]
    return [row for row in rows if len(row) == width]
