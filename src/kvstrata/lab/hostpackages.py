"""The packages that the controller needs for a lab or for the tests, installed when they are missing."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kvstrata.lab import shell
from kvstrata.lab.errors import LabError
from kvstrata.lab.progress import step

# Package -> where one of its files is found. Files are asked, not dpkg: a tool may come from elsewhere.
NEEDED: dict[str, tuple[str, ...]] = {
    "podman": ("podman",),
    "conmon": ("conmon", "/usr/libexec/podman/conmon"),
    "netavark": ("/usr/lib/podman/netavark", "/usr/libexec/podman/netavark"),
    "iptables": ("iptables-save",),
    "iproute2": ("ip",),
    "mmdebstrap": ("mmdebstrap",),
    "debian-archive-keyring": ("/usr/share/keyrings/debian-archive-keyring.gpg",),
    "xfsprogs": ("mkfs.xfs",),
    "mount": ("losetup",),
    "openssh-client": ("ssh-keygen",),
    "rsync": ("rsync",),
    "ca-certificates": ("/etc/ssl/certs/ca-certificates.crt",),
}
# What the tests start themselves: real servers, a slow network, certificates.
TESTS: dict[str, tuple[str, ...]] = {
    "redis-server": ("redis-server",),
    "iproute2": ("tc",),
    "openssl": ("openssl",),
    # What the drives' guard is shown: partition tables and file systems made by those who make them elsewhere.
    "gdisk": ("sgdisk",),
    "fdisk": ("sfdisk",),
    "btrfs-progs": ("mkfs.btrfs",),
    "dosfstools": ("mkfs.vfat",),
    "e2fsprogs": ("mkfs.ext4",),
    "xfsprogs": ("mkfs.xfs",),
}
# What the lab's virtual machines need: QEMU, and what makes their disk.
MACHINES: dict[str, tuple[str, ...]] = {
    "qemu-system-x86": ("qemu-system-x86_64",),
    "qemu-utils": ("qemu-img",),
    "mmdebstrap": ("mmdebstrap",),
    "debian-archive-keyring": ("/usr/share/keyrings/debian-archive-keyring.gpg",),
    "e2fsprogs": ("mkfs.ext4",),
    "openssh-client": ("ssh-keygen",),
}
_POLICY = Path("/usr/sbin/policy-rc.d")
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"


def _present(where: str) -> bool:
    if where.startswith("/"):
        return Path(where).exists()
    return shutil.which(where, path=f"{os.environ.get('PATH', '')}:{_SBIN}") is not None


def missing(
    *, cgroup_v2: bool, present: Callable[[str], bool] = _present, needed: dict[str, tuple[str, ...]] = NEEDED
) -> list[str]:
    """Return the packages to install, in a stable order.

    The runtime is runc on cgroup v1, where crun refuses hybrid hierarchies; on v2 either will do.
    """
    runtimes = ("runc", "crun") if cgroup_v2 else ("runc",)
    wanted = {**needed, "runc": runtimes}
    return [package for package, places in wanted.items() if not any(map(present, places))]


def is_debian_like(os_release: Iterable[str]) -> bool:
    """Say whether the lines of an os-release file describe Debian, Ubuntu or a derivative."""
    fields = dict(line.strip().split("=", 1) for line in os_release if "=" in line)
    names = f"{fields.get('ID', '')} {fields.get('ID_LIKE', '')}".replace('"', "").split()
    return "debian" in names or "ubuntu" in names


def ensure(*, cgroup_v2: bool) -> None:
    """Install what a lab needs and is missing, saying so.

    LabError when not root, or when this is no Debian or Ubuntu.
    """
    if os.geteuid() != 0:
        raise LabError("the lab needs root: it attaches loop devices and makes a bridge. Run it with sudo.")
    _install(lambda: missing(cgroup_v2=cgroup_v2))


def ensure_for_tests() -> None:
    """Install what the tests need and is missing; starts none of it. LabError as for `ensure`."""
    _ensure(TESTS)


def ensure_for_machines() -> None:
    """Install what virtual machines need and is missing. LabError as for `ensure`."""
    if os.geteuid() != 0:
        raise LabError("machines need root: their disk is made of files of root's. Run it with sudo.")
    _ensure(MACHINES)


def _ensure(needed: dict[str, tuple[str, ...]]) -> None:
    def absent() -> list[str]:
        return [package for package, places in needed.items() if not any(map(_present, places))]

    if absent() and os.geteuid() != 0:
        raise LabError(f"missing here: {', '.join(absent())}. Install them, or run this as root once.")
    with _no_service_starts():
        _install(absent)


def _install(absent: Callable[[], list[str]]) -> None:
    packages = absent()
    if not packages:
        return
    release = Path("/etc/os-release")
    if not is_debian_like(release.read_text().splitlines() if release.exists() else ()):
        raise LabError(
            f"missing here: {', '.join(packages)}. They are installed for you on Debian and Ubuntu only; "
            "install them with this system's package manager and run again."
        )
    with step("host packages") as current:
        current.note(f"installing {' '.join(packages)}")
        noninteractive = {"DEBIAN_FRONTEND": "noninteractive"}
        apt = ("apt-get", "-o", "DPkg::Lock::Timeout=300")
        shell.stream((*apt, "update", "-q"), lambda _line: None, noninteractive)
        install = (*apt, "install", "-y", "-q", "--no-install-recommends", *packages)

        def say(line: str) -> None:
            if line.startswith("Setting up "):
                current.note(line)

        shell.stream(install, say, noninteractive)
        still = absent()
        if still:
            raise LabError(f"still missing after apt-get install: {', '.join(still)}")
        current.result = f"{len(packages)} installed"


@contextmanager
def _no_service_starts() -> Iterator[None]:
    """Have Debian's packages start nothing meanwhile, in the way that their maintainer scripts ask for."""
    if _POLICY.exists() or os.geteuid() != 0:
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()
