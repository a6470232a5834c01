"""What is wanted of a node, what the probe saw there, and what is decided."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from kvstrata.driver.pciids import Device, devices_of
from kvstrata.preflight.problem import Problem

_VERSION = re.compile(r"(?:\d+:)?(\d+(?:\.\d+)+)")


class Flavour(StrEnum):
    """The two kinds of kernel modules."""

    OPEN = "open"
    PROPRIETARY = "proprietary"


class Build(StrEnum):
    """Where the kernel modules come from."""

    DKMS = "dkms"
    PRECOMPILED = "precompiled"


def driver_version(text: str) -> tuple[int, ...]:
    """Return the driver's version in a package's, as (580, 95, 5) of "3:580.95.05-1.el9"; () where there is none."""
    match = _VERSION.match(text)
    return tuple(int(part) for part in match[1].split(".")) if match else ()


@dataclass(frozen=True)
class Wanted:
    """What the inventory says, and what the controller knows of itself."""

    gpus: int
    version: str = ""
    """Exact, as "580.95.05"; empty where a driver that is there is taken as it is."""
    branch: str = ""
    flavour: str = "auto"
    """auto, open or proprietary."""
    build: str = Build.DKMS
    repository: str = "nvidia"
    """nvidia, distribution, or the URL of a mirror."""
    install: bool = False
    allow_downgrade: bool = False
    allow_reboot: bool = True
    hold: bool = True
    persistence: bool = True
    controller_boot_id: str = ""
    """Of the machine that Ansible runs on: a node with the same one is that machine."""

    @property
    def numbers(self) -> tuple[int, ...]:
        """The version as numbers."""
        return driver_version(self.version)


@dataclass(frozen=True)
class Module:
    """A kernel module nvidia, loaded or installed."""

    version: str
    flavour: Flavour | None
    """None where nothing says so."""
    signer: str = ""


@dataclass(frozen=True)
class Installed:
    """An installed package."""

    version: str
    held: bool


@dataclass(frozen=True)
class Probe:
    """What plugins/modules/kvstrata_gpu_probe.py saw on a node, typed."""

    system: str
    """ID of /etc/os-release."""
    release: str
    """VERSION_ID of /etc/os-release; of Enterprise Linux, the major number."""
    kernel: str
    arch: str
    """As uname -m."""
    boot_id: str
    container: str
    """The kind of container that the node is, or nothing."""
    devices: tuple[Device, ...]
    loaded: Module | None
    installed: Module | None
    nouveau: bool
    """Whether nouveau is loaded."""
    secure_boot: bool
    mok_enrolled: bool
    """Whether the key that DKMS signs with is one that the firmware takes."""
    headers: bool
    """Whether the running kernel's headers are installed."""
    packages: Mapping[str, Installed]
    broken: Mapping[str, str]
    """Packages that are not whole, and what is wrong with each."""
    interrupted: bool
    """Whether dpkg was interrupted in the middle of its work."""
    lock: Mapping[str, Any] | None
    """Who holds the package manager's lock: file, pid, process, unit."""
    own_holds: frozenset[str] | None
    """Packages that an earlier run of the role put on hold; None where there was no such run."""
    module_stream: str
    """The enabled stream of the dnf module nvidia-driver, or nothing."""
    candidates: Mapping[str, tuple[str, ...]] | None
    """Versions that the package manager could install, where it was asked."""

    @classmethod
    def of(cls, seen: Mapping[str, Any]) -> Probe:
        """Return the probe's result, typed. Raises KeyError when a part of it is missing."""
        system, release = str(seen["os"]["id"]), str(seen["os"]["version_id"])
        packages = {name: Installed(entry["version"], entry["held"]) for name, entry in seen["packages"].items()}
        asked, own = seen["candidates"], seen["own"]
        return cls(
            system=system,
            release=release.partition(".")[0] if system in ENTERPRISE else release,
            kernel=seen["kernel"]["release"],
            arch=seen["kernel"]["arch"],
            boot_id=seen["boot_id"],
            container=seen["container"],
            devices=devices_of(seen["devices"]),
            loaded=_module(seen["loaded"]),
            installed=_module(seen["installed"]),
            nouveau=seen["nouveau"],
            secure_boot=seen["secure_boot"]["state"] == "on",
            mok_enrolled=seen["secure_boot"]["mok_enrolled"] is True,
            headers=seen["kernel"]["headers"],
            packages=packages,
            broken=seen["package_state"]["broken"],
            interrupted=seen["package_state"]["interrupted"],
            lock=seen["package_state"]["lock"],
            own_holds=None if own is None else frozenset(own["holds"]),
            module_stream=seen["module_stream"],
            candidates=None if asked is None else {name: tuple(versions) for name, versions in asked.items()},
        )

    @property
    def gpus(self) -> tuple[Device, ...]:
        """The GPUs of the node."""
        return tuple(device for device in self.devices if device.is_gpu)

    @property
    def nvswitches(self) -> tuple[Device, ...]:
        """NVSwitches that Fabric Manager drives itself."""
        return tuple(device for device in self.devices if device.is_nvswitch)

    @property
    def nvlink5_switches(self) -> tuple[Device, ...]:
        """Management interfaces of NVSwitches that need the NVLink subnet manager too."""
        return tuple(device for device in self.devices if device.is_nvlink5_switch)


ENTERPRISE = frozenset({"rhel", "rocky", "almalinux"})


def _module(entry: Mapping[str, Any] | None) -> Module | None:
    if entry is None:
        return None
    flavour = Flavour(entry["flavour"]) if entry["flavour"] else None
    return Module(entry["version"], flavour, entry.get("signer", ""))


@dataclass(frozen=True)
class Package:
    """A package to have."""

    name: str
    version: str = ""
    """A version with a wildcard, as "580.95.05-*"; empty for any."""
    optional: bool = False
    """Taken where the repository has it: its name differs between branches."""

    def accepts(self, version: str) -> bool:
        """Tell whether an installed or offered version is the wanted one; an epoch does not matter."""
        return not self.version or fnmatchcase(version.rpartition(":")[2], self.version)


@dataclass(frozen=True)
class Refusal:
    """Why nothing is done."""

    code: str
    """Stable; docs/driver.md explains each."""
    variable: str
    given: object
    allowed: str

    def problem(self, where: str) -> Problem:
        """Return it as what preflight reports."""
        return Problem(where, self.variable, self.given, self.allowed)


@dataclass(frozen=True)
class Plan:
    """What a node gets. With a refusal, nothing of it is done."""

    refusals: tuple[Refusal, ...] = ()
    flavour: Flavour | None = None
    packages: tuple[Package, ...] = ()
    """Everything the driver is made of."""
    install: tuple[str, ...] = ()
    """What of it is missing or of another version, as the package manager wants it named."""
    hold: tuple[str, ...] = ()
    release: tuple[str, ...] = ()
    """Packages on hold by an earlier run that have to move or are no longer wanted."""
    module_stream: str = ""
    """The stream to enable of dnf's module nvidia-driver."""
    switch_stream: bool = False
    services: tuple[str, ...] = ()
    load_at_boot: tuple[str, ...] = ()
    """Kernel modules that the fabric's software needs."""
    actions: tuple[str, ...] = ()
    """What would be done, in sentences; nothing on a node that is as it should be."""
    notes: tuple[str, ...] = ()
    """What whoever deploys should know."""
    names: tuple[str, ...] = field(default=())
    """Names of all packages, for asking the package manager what it could install."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return asdict(self)
