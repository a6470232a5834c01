"""The packages that a driver is made of, by distribution and branch.

Names are those of NVIDIA's driver installation guide (compute-only), of its Fabric Manager guide and of
github.com/NVIDIA/gpu-driver-container; branch numbers in Ubuntu's names ended with 590, in Fabric Manager's with 580.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kvstrata.driver.model import ENTERPRISE, Build, Flavour, Package, Probe, Wanted

FIRST_FABRIC_MANAGER_WITHOUT_BRANCH = 580
FIRST_UBUNTU_WITHOUT_BRANCH = 590
FIRST_NVLSM_BRANCH = 570


@dataclass(frozen=True)
class System:
    """A distribution that a driver can be installed on."""

    folder: str
    """Its folder in NVIDIA's network repository."""
    first_branch: int
    """The oldest branch whose packages have the names known here."""


SYSTEMS: Mapping[tuple[str, str], System] = {
    ("debian", "12"): System("debian12", 570),
    ("debian", "13"): System("debian13", 580),
    ("ubuntu", "22.04"): System("ubuntu2204", 535),
    ("ubuntu", "24.04"): System("ubuntu2404", 535),
    ("rocky", "9"): System("rhel9", 535),
    ("rhel", "9"): System("rhel9", 535),
    ("almalinux", "9"): System("rhel9", 535),
}
ARCHITECTURES: Mapping[str, str] = {"x86_64": "x86_64", "aarch64": "sbsa"}
"""Machine of uname -> its folder in NVIDIA's network repository."""


def packages_of(wanted: Wanted, probe: Probe, flavour: Flavour) -> tuple[Package, ...]:
    """Return every package of the driver on a node whose system, architecture and branch are supported."""
    branch, exact = wanted.numbers[0], f"{wanted.version}-*"
    if wanted.build == Build.PRECOMPILED:
        found = _ubuntu_precompiled(branch, exact, flavour, probe)
    elif probe.system in ENTERPRISE:
        found = _enterprise(exact, flavour, probe)
    elif probe.system == "ubuntu":
        found = _ubuntu(branch, exact, flavour, probe)
    else:
        found = _debian(exact, flavour, probe)
    return (*found, *_fabric(branch, exact, probe))


def module_stream(wanted: Wanted, probe: Probe, flavour: Flavour) -> str:
    """Return the stream of dnf's module nvidia-driver that has the branch, or nothing where there is no dnf."""
    if probe.system not in ENTERPRISE:
        return ""
    return f"{wanted.numbers[0]}-{'open' if flavour is Flavour.OPEN else 'dkms'}"


def folder_of(probe: Probe) -> str:
    """Return the folder for the node in NVIDIA's network repository, as "ubuntu2404/sbsa", or nothing."""
    system = SYSTEMS.get((probe.system, probe.release))
    return f"{system.folder}/{ARCHITECTURES.get(probe.arch, probe.arch)}" if system else ""


def headers_of(probe: Probe) -> str:
    """Return the package with the headers of the running kernel."""
    return f"kernel-devel-{probe.kernel}" if probe.system in ENTERPRISE else f"linux-headers-{probe.kernel}"


def services_of(wanted: Wanted, probe: Probe) -> tuple[str, ...]:
    """Return the services that run beside the driver."""
    services = ["nvidia-persistenced"] if wanted.persistence else []
    if probe.nvswitches or probe.nvlink5_switches:
        services.append("nvidia-fabricmanager")
    return tuple(services)


def modules_at_boot(probe: Probe) -> tuple[str, ...]:
    """Return the kernel modules that the subnet manager of NVLink 5 talks through."""
    return ("mlx5_core", "mlx5_ib", "ib_umad") if probe.nvlink5_switches else ()


def _debian(exact: str, flavour: Flavour, probe: Probe) -> list[Package]:
    modules = "nvidia-kernel-open-dkms" if flavour is Flavour.OPEN else "nvidia-kernel-dkms"
    return [
        Package(headers_of(probe)),
        Package(modules, exact),
        Package("nvidia-driver-cuda", exact),
        Package("nvidia-persistenced", exact, optional=True),
    ]


def _ubuntu(branch: int, exact: str, flavour: Flavour, probe: Probe) -> list[Package]:
    infix = "" if branch >= FIRST_UBUNTU_WITHOUT_BRANCH else f"-{branch}"
    modules = f"nvidia-dkms{infix}{'-open' if flavour is Flavour.OPEN else ''}"
    return [
        Package(headers_of(probe)),
        Package(modules, exact),
        Package(f"libnvidia-compute{infix}", exact),
        # nvidia-smi and the persistence daemon; from 590 on, which of these packages there is depends on the branch.
        *(
            Package(name, exact, optional=not infix)
            for name in (f"nvidia-utils{infix}", f"nvidia-compute-utils{infix}")
        ),
        *([] if infix else [Package("nvidia-persistenced", exact, optional=True)]),
    ]


def _ubuntu_precompiled(branch: int, exact: str, flavour: Flavour, probe: Probe) -> list[Package]:
    suffix = "-open" if flavour is Flavour.OPEN else ""
    packages = [
        Package(f"linux-modules-nvidia-{branch}-server{suffix}-{probe.kernel}"),
        Package(f"nvidia-headless-no-dkms-{branch}-server{suffix}", exact),
        Package(f"nvidia-utils-{branch}-server", exact),
        Package(f"nvidia-compute-utils-{branch}-server", exact),
    ]
    if probe.arch == "x86_64":
        packages.append(Package(f"linux-signatures-nvidia-{probe.kernel}", optional=True))
    return packages


def _enterprise(exact: str, flavour: Flavour, probe: Probe) -> list[Package]:
    modules = "kmod-nvidia-open-dkms" if flavour is Flavour.OPEN else "kmod-nvidia-latest-dkms"
    return [
        Package(headers_of(probe)),
        Package(modules, exact),
        Package("nvidia-driver-cuda", exact),
        Package("nvidia-persistenced", exact),
    ]


def _fabric(branch: int, exact: str, probe: Probe) -> list[Package]:
    """Return Fabric Manager where there is an NVSwitch, and what NVLink 5 needs beside it."""
    if not probe.nvswitches and not probe.nvlink5_switches:
        return []
    name = "nvidia-fabricmanager"
    if branch < FIRST_FABRIC_MANAGER_WITHOUT_BRANCH:
        name = "nvidia-fabric-manager" if probe.system in ENTERPRISE else f"nvidia-fabricmanager-{branch}"
    packages = [Package(name, exact)]
    if probe.nvlink5_switches:
        packages += [Package("nvlsm"), Package("infiniband-diags")]
        if probe.system == "ubuntu":
            # Without it the kernel has no mlx5_ib and no ib_umad, and the fabric never comes up (gpu-operator#2781).
            packages.append(Package(f"linux-modules-extra-{probe.kernel}", optional=True))
    return packages
