"""The decision: from what is wanted and what was seen to a plan, or to every reason against one."""

from __future__ import annotations

import re

from kvstrata.driver import packages as lists
from kvstrata.driver.flavour import choose, judge_branch, notes_on
from kvstrata.driver.model import ENTERPRISE, Build, Flavour, Module, Package, Plan, Probe, Refusal, Wanted
from kvstrata.driver.reboot import activation, needed
from kvstrata.driver.secureboot import judge_secure_boot
from kvstrata.driver.state import judge_manager, judge_offer, judge_versions, missing, newest, to_release

_EXACT = re.compile(r"\d{3}\.\d+(\.\d+)?")
# Kernel packages are held by the role host; tools for InfiniBand may move freely.
_NOT_HELD = re.compile(r"linux-(headers|modules-extra|signatures)-.*|kernel-devel-.*|infiniband-diags")


def decide(wanted: Wanted, probe: Probe) -> Plan:
    """Return what the node gets; with refusals, all of them at once, nothing is to be done."""
    if wanted.gpus == 0:
        return Plan()
    refusals = _count(wanted, probe)
    if not wanted.install:
        return _as_it_is(wanted, probe, refusals)
    # What follows is about a version, a system and GPUs: without them, it would say the same again in other words.
    refusals += [*_version(wanted), *_system(wanted, probe), *judge_manager(probe)]
    if not probe.gpus or any(refusal.code in ("bad_version", "unsupported_system") for refusal in refusals):
        return Plan(refusals=tuple(refusals))
    flavour, wrong = choose(wanted, probe.gpus)
    refusals += wrong or judge_branch(wanted, flavour, probe.gpus)
    refusals += [*_build(wanted, probe), *_fabric(wanted, probe), *judge_secure_boot(wanted, probe, flavour)]
    return _install(wanted, probe, flavour, refusals)


def _install(wanted: Wanted, probe: Probe, flavour: Flavour, refusals: list[Refusal]) -> Plan:
    packages = lists.packages_of(wanted, probe, flavour)
    headers = lists.headers_of(probe)
    # A kernel of one's own has its headers without a package.
    absent = [package for package in missing(probe, packages) if package.name != headers or not probe.headers]
    refusals = [*refusals, *judge_versions(wanted, probe, packages), *judge_offer(wanted, probe, absent, headers)]
    moves = bool(absent)
    future = Module(wanted.version, flavour) if moves or probe.installed is None else probe.installed
    step = needed(probe, future)
    if step.reboot:
        refusals += _restart(wanted, probe, step.reboot)
    stream = lists.module_stream(wanted, probe, flavour)
    hold = tuple(p.name for p in packages if not _NOT_HELD.fullmatch(p.name)) if wanted.hold else ()
    install = tuple(_spelled(probe, package, newest(probe, package)) for package in absent)
    actions = [f"install {', '.join(install)}"] if install else []
    actions += [f"restart the node: {step.reboot}"] if step.reboot else []
    return Plan(
        refusals=tuple(refusals),
        flavour=flavour,
        packages=packages,
        install=install,
        hold=hold,
        release=to_release(probe, packages, hold),
        module_stream=stream,
        switch_stream=bool(stream) and stream != probe.module_stream,
        services=lists.services_of(wanted, probe),
        load_at_boot=lists.modules_at_boot(probe),
        actions=tuple(actions),
        notes=tuple(notes_on(probe.gpus)),
        names=tuple(package.name for package in packages),
    )


def _as_it_is(wanted: Wanted, probe: Probe, refusals: list[Refusal]) -> Plan:
    """Judge a driver that somebody else takes care of."""
    if probe.loaded is None:
        text = f"{wanted.gpus}, and no driver is loaded" + (" but nouveau" if probe.nouveau else "")
        allowed = "GPUs with a driver; give nvidia_driver_version, and kvstrata installs it"
        refusals.append(Refusal("no_driver", "kvstrata_gpus", text, allowed))
    elif wanted.version and probe.loaded.version != wanted.version:
        allowed = f"the version that is loaded ({probe.loaded.version}), or nvidia_driver_mode: install"
        refusals.append(Refusal("other_version", "nvidia_driver_version", wanted.version, allowed))
    notes = []
    if probe.loaded is not None and (reason := activation(probe).reboot):
        notes.append(f"{reason}: the node waits for a restart, and until then programs may fail")
    switches = (*probe.nvswitches, *probe.nvlink5_switches)
    if switches and not any(re.match(r"nvidia-fabric-?manager", name) for name in probe.packages):
        notes.append(f"{switches[0].address} is an NVSwitch, and no package of Fabric Manager is installed")
    return Plan(refusals=tuple(refusals), notes=tuple(notes))


def _count(wanted: Wanted, probe: Probe) -> list[Refusal]:
    if len(probe.gpus) == wanted.gpus:
        return []
    seen = ", ".join(map(str, probe.gpus)) or "none"
    allowed = f"{len(probe.gpus)}, the NVIDIA GPUs on the node's PCI bus: {seen}"
    return [Refusal("gpu_count", "kvstrata_gpus", wanted.gpus, allowed)]


def _version(wanted: Wanted) -> list[Refusal]:
    if not _EXACT.fullmatch(wanted.version):
        allowed = 'an exact version in quotes, as "580.95.05"'
        return [Refusal("bad_version", "nvidia_driver_version", wanted.version, allowed)]
    if wanted.branch and wanted.branch != wanted.version.partition(".")[0]:
        allowed = f"{wanted.version.partition('.')[0]}, the branch of nvidia_driver_version {wanted.version}"
        return [Refusal("other_branch", "nvidia_driver_branch", wanted.branch, allowed)]
    return []


def _system(wanted: Wanted, probe: Probe) -> list[Refusal]:
    if probe.container:
        allowed = "a machine of its own: the kernel, and so the driver, of a container is its host's"
        return [Refusal("container", "node", f"a container ({probe.container})", allowed)]
    system = lists.SYSTEMS.get((probe.system, probe.release))
    if system is None:
        known = ", ".join(f"{name} {release}" for name, release in lists.SYSTEMS)
        given = f"{probe.system} {probe.release}"
        return [Refusal("unsupported_system", "operating system", given, known)]
    if probe.arch not in lists.ARCHITECTURES:
        allowed = ", ".join(lists.ARCHITECTURES)
        return [Refusal("unsupported_system", "machine architecture", probe.arch, allowed)]
    if wanted.numbers and wanted.numbers[0] < system.first_branch:
        allowed = (
            f"{system.first_branch} or newer: older branches have other packages on {probe.system} {probe.release}"
        )
        return [Refusal("branch_too_old", "nvidia_driver_version", wanted.version, allowed)]
    return []


def _build(wanted: Wanted, probe: Probe) -> list[Refusal]:
    precompiled = wanted.build == Build.PRECOMPILED
    if precompiled and probe.system != "ubuntu":
        allowed = f"dkms: kvstrata knows no precompiled modules for {probe.system} {probe.release}"
        return [Refusal("no_precompiled", "nvidia_driver_build", wanted.build, allowed)]
    if precompiled is not (wanted.repository == "distribution"):
        allowed = "distribution with precompiled modules, for they are Ubuntu's own; nvidia or a mirror with dkms"
        return [Refusal("wrong_repository", "nvidia_driver_repository", wanted.repository, allowed)]
    if wanted.repository == "nvidia" and "cuda-keyring" in probe.packages:
        allowed = "a node without cuda-keyring, which names the same repository with another key: apt takes no two"
        return [Refusal("other_source", "installed package", "cuda-keyring", allowed)]
    return []


def _fabric(wanted: Wanted, probe: Probe) -> list[Refusal]:
    if probe.nvlink5_switches and wanted.numbers[0] < lists.FIRST_NVLSM_BRANCH:
        allowed = f"{lists.FIRST_NVLSM_BRANCH} or newer: the first branch with a subnet manager for NVLink 5"
        return [Refusal("branch_too_old", "nvidia_driver_version", wanted.version, allowed)]
    return []


def _restart(wanted: Wanted, probe: Probe, reason: str) -> list[Refusal]:
    if probe.boot_id == wanted.controller_boot_id:
        allowed = f"a node other than the machine that Ansible runs on: it would have to restart, for {reason}"
        return [Refusal("controller", "node", "the controller itself", allowed)]
    if not wanted.allow_reboot:
        allowed = f"true: the node has to restart, for {reason}"
        return [Refusal("reboot_not_allowed", "nvidia_driver_allow_reboot", False, allowed)]
    return []


def _spelled(probe: Probe, package: Package, version: str) -> str:
    """Return a package and its version as the package manager wants it."""
    if not version:
        return package.name
    if probe.system in ENTERPRISE:
        return f"{package.name}-{version.removesuffix('-*')}"
    return f"{package.name}={version}"
