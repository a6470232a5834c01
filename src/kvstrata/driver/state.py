"""Whether the package manager of a node can be let at its driver: whole, free, not held, no downgrade."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kvstrata.driver.model import ENTERPRISE, Package, Probe, Refusal, Wanted, driver_version

_DRIVER = re.compile(
    r"nvidia-(kernel-(open-)?dkms|dkms|driver|utils|compute-utils|headless|persistenced|open)\b.*"
    r"|nvidia-fabric-?manager.*|libnvidia-compute.*|kmod-nvidia.*"
)
# Packages that have the driver's version, and depend on each other in it; the container toolkit has its own.
_FAMILY = re.compile(
    r"(lib)?nvidia-(?!container|docker|driver-pinning).*|libcuda1|libcudadebugger1|libnvcuvid1|cuda-drivers.*"
)
_PINNING = re.compile(r"nvidia-driver-pinning-([\d.]+)")


def judge_manager(probe: Probe) -> list[Refusal]:
    """Return why nothing can be installed on the node at all."""
    what = "rpm" if probe.system in ENTERPRISE else "dpkg"
    refusals = []
    if probe.lock is not None:
        holder = probe.lock
        unit = f", {holder['unit']}" if holder["unit"] else ""
        given = f"{holder['process']} (pid {holder['pid']}{unit}) holds {holder['file']}"
        allowed = "a package manager that nothing uses; wait until that has ended, or end it, and run again"
        refusals.append(Refusal("locked", "package manager", given, allowed))
    if probe.interrupted:
        allowed = "a package manager that has finished its work: run `dpkg --configure -a` on the node and look at it"
        refusals.append(Refusal("interrupted", "package manager", "dpkg was interrupted", allowed))
    if probe.broken:
        given = ", ".join(f"{name} ({state})" for name, state in sorted(probe.broken.items()))
        repair = "`dpkg --audit`, then `dpkg --configure -a` and" if what == "dpkg" else "`rpm --verify` and"
        fix = "`apt-get --fix-broken install`" if what == "dpkg" else "`dnf check`"
        allowed = f"packages that are whole: run {repair} {fix} on the node until it says nothing"
        refusals.append(Refusal("broken_packages", f"packages of {what}", given, allowed))
    return refusals


def judge_versions(wanted: Wanted, probe: Probe, packages: Sequence[Package]) -> list[Refusal]:
    """Return why these packages may not move to the wanted version: somebody's hold, or a downgrade."""
    return [*_held(wanted, probe, packages), *_pinned(wanted, probe), *_downgrade(wanted, probe)]


def to_release(probe: Probe, packages: Sequence[Package], hold: Sequence[str]) -> tuple[str, ...]:
    """Return the packages whose hold, put there by an earlier run, is in the way or no longer wanted."""
    stay = {package.name for package in packages if _is_there(probe, package) and package.name in hold}
    ours = probe.own_holds or frozenset()
    return tuple(sorted(name for name in ours if _on_hold(probe, name) and name not in stay))


def missing(probe: Probe, packages: Sequence[Package]) -> list[Package]:
    """Return the packages that are not installed in the wanted version; of the optional ones, those on offer."""
    absent = [package for package in packages if not _is_there(probe, package)]
    return [package for package in absent if not package.optional or _offered(probe, package)]


def newest(probe: Probe, package: Package) -> str:
    """Return the version to install, exact where the package manager was asked, or nothing for any."""
    offers = _offered(probe, package)
    return max(offers, key=_order) if offers and package.version else package.version


def judge_offer(wanted: Wanted, probe: Probe, absent: Sequence[Package], headers: str) -> list[Refusal]:
    """Return what the package manager cannot install, once it was asked."""
    if probe.candidates is None:
        return []
    refusals = []
    for package in absent:
        offers = probe.candidates.get(package.name, ())
        if package.optional or _offered(probe, package):
            continue
        if package.name == headers:
            refusals.append(_headers(probe, headers))
            continue
        seen = ", ".join(sorted({_upstream(version) for version in offers})) or "no such package"
        allowed = f"a version of {package.name} that the repository has; it has: {seen}"
        refusals.append(Refusal("not_in_repository", "nvidia_driver_version", wanted.version, allowed))
    return refusals


def _headers(probe: Probe, headers: str) -> Refusal:
    return Refusal(
        "no_headers",
        "running kernel",
        probe.kernel,
        f"one whose headers the node's repositories have: there is no {headers}. Usually a newer kernel is installed "
        "already, and the node runs the older one: restart it into a kernel of its repositories, or mirror the package",
    )


def _held(wanted: Wanted, probe: Probe, packages: Sequence[Package]) -> list[Refusal]:
    """Judge holds of somebody else: on the packages themselves, and on what they depend on in one version."""
    if not missing(probe, packages):
        return []
    named = {package.name: package for package in packages}
    exact = f"{wanted.version}-*"
    refusals = []
    for name, installed in sorted(probe.packages.items()):
        package = named.get(name) or Package(name, exact)
        ours = name in (probe.own_holds or ())
        moves = name in named or (_FAMILY.fullmatch(name) and len(driver_version(installed.version)) > 1)
        if installed.held and not ours and moves and not package.accepts(installed.version):
            refusals.append(_hold(wanted, probe, f"{name} {installed.version}", name))
    return refusals


def _hold(wanted: Wanted, probe: Probe, given: str, name: str) -> Refusal:
    undo = "dnf versionlock delete" if probe.system in ENTERPRISE else "apt-mark unhold"
    allowed = (
        f"a package that may move to {wanted.version}; somebody put this one on hold. "
        f"If that is no longer meant: {undo} {name}"
    )
    return Refusal("held_elsewhere", "package on hold", given, allowed)


def _pinned(wanted: Wanted, probe: Probe) -> list[Refusal]:
    refusals = []
    for name in sorted(probe.packages):
        match = _PINNING.fullmatch(name)
        if match and not f"{wanted.version}.".startswith(f"{match[1]}."):
            allowed = f"no pin to other versions than {wanted.version}: remove {name}; kvstrata writes a pin of its own"
            refusals.append(Refusal("pinned_elsewhere", "installed package", name, allowed))
    return refusals


def _downgrade(wanted: Wanted, probe: Probe) -> list[Refusal]:
    if wanted.allow_downgrade:
        return []
    newer = {
        name: package.version
        for name, package in probe.packages.items()
        if _DRIVER.fullmatch(name) and driver_version(package.version) > wanted.numbers
    }
    if not newer and probe.installed and driver_version(probe.installed.version) > wanted.numbers:
        newer = {"kernel module": probe.installed.version}
    if not newer:
        return []
    seen = ", ".join(f"{name} {version}" for name, version in sorted(newer.items()))
    allowed = f"a version not older than what is installed ({seen}), or nvidia_driver_allow_downgrade: true"
    return [Refusal("downgrade", "nvidia_driver_version", wanted.version, allowed)]


def _is_there(probe: Probe, package: Package) -> bool:
    installed = probe.packages.get(package.name)
    return installed is not None and package.accepts(installed.version)


def _on_hold(probe: Probe, name: str) -> bool:
    installed = probe.packages.get(name)
    return installed is not None and installed.held


def _offered(probe: Probe, package: Package) -> list[str]:
    return [version for version in (probe.candidates or {}).get(package.name, ()) if package.accepts(version)]


def _upstream(version: str) -> str:
    """Return a package's version without epoch and packaging revision."""
    return version.rpartition(":")[2].partition("-")[0]


def _order(version: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Order versions that differ in their packaging revision alone."""
    upstream, _, revision = version.partition("-")
    return driver_version(upstream), tuple(int(part) for part in re.findall(r"\d+", revision))
