"""What a node's kernel and firmware say of GPUs and their driver, read and never changed.

Runs on the nodes: Python 3.9, the standard library alone. Every path is below `root`, so that a tree of fixtures is
read like a machine.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable
from typing import Any, Optional

NVIDIA, MELLANOX = "0x10de", "0x15b3"
WATCHED = ("nvidia", "nvidia_uvm", "nouveau", "mlx5_core", "mlx5_ib", "ib_umad")
# The EFI variable and its vendor, as UEFI names them; its value follows four bytes of attributes.
SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
MOK_KEYS = ("var/lib/dkms/mok.pub", "var/lib/shim-signed/mok/MOK.der")
# NVIDIA's driver container asks for this word, in the VPD of the bridge before NVSwitches of NVLink 5.
SWITCH_MANAGEMENT = b"SW_MNG"
VPD_BYTES = 1024

Run = Callable[[list[str]], tuple[int, str]]
"""Runs a command; returns its exit status (127 where there is no such program) and its output."""


class Host:
    """Where to read, and how to run a program; tests give both."""

    def __init__(self, run: Run, root: str = "/") -> None:
        self.root = root
        self.run = run

    def path(self, name: str) -> str:
        """Return a path below the root; `name` has no leading slash."""
        return os.path.join(self.root, name)

    def read(self, name: str) -> str:
        """Return a file's text without spaces around it, or nothing where it cannot be read."""
        try:
            with open(self.path(name), errors="replace") as stream:
                return stream.read().strip()
        except OSError:
            return ""

    def read_bytes(self, name: str, most: int) -> bytes:
        """Return the first bytes of a file, or nothing where it cannot be read."""
        try:
            with open(self.path(name), "rb") as stream:
                return stream.read(most)
        except OSError:
            return b""


def devices(host: Host) -> list[dict[str, Any]]:
    """Return NVIDIA's PCI functions, and beside a GPU the bridges that manage NVLink 5 switches."""
    found = []
    bridges = []
    for folder in sorted(glob.glob(host.path("sys/bus/pci/devices/*"))):
        entry = _device(host, folder)
        if entry["vendor"] == NVIDIA:
            found.append(entry)
        elif entry["vendor"] == MELLANOX:
            bridges.append((folder, entry))
    # Reading a VPD takes the device's firmware some time: not where there is no GPU.
    for folder, entry in bridges if found else []:
        vpd = host.read_bytes(os.path.join(folder, "vpd"), VPD_BYTES)
        if SWITCH_MANAGEMENT in vpd:
            found.append({**entry, "switch_management": True})
    return found


def _device(host: Host, folder: str) -> dict[str, Any]:
    driver = os.path.join(folder, "driver")
    numa = host.read(os.path.join(folder, "numa_node"))
    return {
        "address": os.path.basename(folder),
        "vendor": host.read(os.path.join(folder, "vendor")),
        "device": host.read(os.path.join(folder, "device")),
        "class": host.read(os.path.join(folder, "class")),
        "numa_node": int(numa) if re.fullmatch(r"-?\d+", numa) else -1,
        "driver": os.path.basename(os.path.realpath(driver)) if os.path.islink(driver) else "",
        "switch_management": False,
    }


def loaded(host: Host) -> Optional[dict[str, str]]:
    """Return version and flavour of the loaded module nvidia, or None."""
    version = host.read("sys/module/nvidia/version")
    if not version:
        return None
    return {"version": version, "flavour": flavour_of_banner(host.read("proc/driver/nvidia/version"))}


def flavour_of_banner(text: str) -> str:
    """Return the flavour that /proc/driver/nvidia/version names, or nothing where it cannot be read."""
    if not text.startswith("NVRM version:"):
        return ""
    return "open" if "Open Kernel Module" in text else "proprietary"


def installed(host: Host, release: str) -> Optional[dict[str, str]]:
    """Return version, flavour and signer of the module nvidia that the running kernel would load, or None."""
    status, output = host.run(["modinfo", "--basedir", host.root, "--set-version", release, "nvidia"])
    return parse_modinfo(output) if status == 0 else None


def parse_modinfo(text: str) -> Optional[dict[str, str]]:
    """Return the same of modinfo's output; open modules have the license "Dual MIT/GPL", the others "NVIDIA"."""
    fields = dict(re.findall(r"^(\w+):[ \t]+(.*)$", text, re.MULTILINE))
    if "version" not in fields:
        return None
    license_name = fields.get("license", "")
    flavour = "open" if "GPL" in license_name else "proprietary" if license_name == "NVIDIA" else ""
    return {"version": fields["version"], "flavour": flavour, "signer": fields.get("signer", "")}


def library(host: Host) -> str:
    """Return the version of the installed libnvidia-ml.so, or nothing."""
    patterns = ("usr/lib/*-linux-gnu/libnvidia-ml.so.*", "usr/lib64/libnvidia-ml.so.*")
    names = [os.path.basename(path) for pattern in patterns for path in glob.glob(host.path(pattern))]
    versions = [name.split(".so.", 1)[1] for name in names]
    return max((version for version in versions if "." in version), default="")


def kernel(host: Host, release: str, machine: str) -> dict[str, Any]:
    """Return the running kernel, and whether what modules are built with is there."""
    headers = os.path.exists(host.path(f"lib/modules/{release}/build/Makefile"))
    modules = [name for name in WATCHED if os.path.isdir(host.path(f"sys/module/{name}"))]
    return {"release": release, "arch": machine, "headers": headers, "modules": modules}


def secure_boot(host: Host) -> dict[str, Any]:
    """Return whether Secure Boot is on, and whether the firmware takes the key that DKMS signs with.

    `state` is on, off or unsupported (no UEFI); `mok_enrolled` is null where there is no key or nobody to ask.
    """
    value = host.read_bytes(SECURE_BOOT, 5)
    state = "unsupported" if len(value) < 5 else "on" if value[4] == 1 else "off"
    _, said = host.run(["mokutil", "--sb-state"])
    if state == "on" and "validation is disabled" in said:
        # The shim stands between: the kernel is told that nothing is checked.
        state = "off"
    key = next((name for name in MOK_KEYS if os.path.exists(host.path(name))), "")
    enrolled = None
    if state == "on" and key:
        status, said = host.run(["mokutil", "--test-key", host.path(key)])
        enrolled = None if status == 127 else "is already enrolled" in said
    return {"state": state, "key": "/" + key if key else "", "mok_enrolled": enrolled}


def container(host: Host) -> str:
    """Return the kind of container that this is, or nothing."""
    named = host.read("run/systemd/container")
    if named:
        return named
    marks = {"run/.containerenv": "podman", ".dockerenv": "docker"}
    return next((kind for mark, kind in marks.items() if os.path.exists(host.path(mark))), "")


def os_release(host: Host) -> dict[str, str]:
    """Return ID and VERSION_ID of /etc/os-release."""
    pairs = dict(line.split("=", 1) for line in host.read("etc/os-release").splitlines() if "=" in line)
    return {key.lower(): pairs.get(key, "").strip("\"'") for key in ("ID", "VERSION_ID")}
