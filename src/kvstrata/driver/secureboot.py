"""Whether a kernel with Secure Boot would load the module, and what to do where it would not."""

from __future__ import annotations

from kvstrata.driver.model import ENTERPRISE, Build, Flavour, Probe, Refusal, Wanted

KEYS = {"debian": "/var/lib/dkms/mok.pub", "ubuntu": "/var/lib/shim-signed/mok/MOK.der"}
"""Where the distribution's DKMS keeps the key that it signs with; elsewhere as Debian's."""


def judge_secure_boot(wanted: Wanted, probe: Probe, flavour: Flavour) -> list[Refusal]:
    """Return why the firmware would keep the kernel from loading the module.

    Ubuntu's precompiled modules carry Canonical's signature. What DKMS builds is signed with a key of the node
    itself, which the firmware takes only after somebody enrolled it at the console (MOK).
    """
    if not probe.secure_boot or wanted.build == Build.PRECOMPILED or probe.mok_enrolled:
        return []
    loaded = probe.loaded
    if loaded is not None and loaded.version == wanted.version and loaded.flavour in (flavour, None):
        return []
    return [
        Refusal(
            "secure_boot",
            "Secure Boot",
            "on, and the key that DKMS signs with is not enrolled",
            f"a module that the firmware lets the kernel load: {steps(probe.system)}",
        )
    ]


def steps(system: str) -> str:
    """Return what to do, in words."""
    key = KEYS.get(system, KEYS["debian"])
    make = "update-secureboot-policy --new-key" if system == "ubuntu" else "dkms generate_mok"
    ways = [
        f"(1) install dkms and mokutil, make the key with `{make}`, give it to the firmware with "
        f"`mokutil --import {key}` and a password of your choice, restart, choose `Enroll MOK` at the console, "
        "type that password, and run again; `mokutil --test-key` tells whether it worked",
        "(2) switch Secure Boot off in the firmware",
    ]
    if system == "ubuntu":
        ways.append("(3) nvidia_driver_build: precompiled, whose modules Canonical signs")
    if system in ENTERPRISE:
        ways[0] = ways[0].replace("install dkms", "install dkms (from EPEL)")
    return "; or ".join(ways)
