"""The mounts that a service sees: PrivateTmp=, ProtectSystem=, ProtectHome=, ReadWritePaths= of systemd.exec(5)."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from pathlib import Path

from kvstrata.unit_runner import folders, linux
from kvstrata.unit_runner.service import Service

_HOMES = ("/home", "/root", "/run/user")
_SYSTEM = {"yes": ("/usr", "/boot", "/efi"), "full": ("/usr", "/boot", "/efi", "/etc")}
_INTERFACES = ("/dev", "/proc", "/sys")
_TEMPORARY = ("/var/tmp", "/tmp")  # noqa: S108 - those that PrivateTmp= is about
_OCTAL = re.compile(r"\\([0-7]{3})")


def wanted(service: Service) -> bool:
    """Return whether the service sees other mounts than the runner."""
    protected = service.protect_system != "no" or service.protect_home != "no"
    return service.private_tmp or service.dynamic_user or protected


def enter(service: Service, writable: Sequence[str], private: Path | None) -> None:
    """Give this process the mounts of the service.

    Args:
        service: what it asks for; DynamicUser= brings PrivateTmp= and more with it.
        writable: folders that stay writable, beside those of ReadWritePaths=.
        private: an empty folder of this unit, for its /tmp; None for a unit that has none of its own.

    Raises:
        OSError: the kernel refuses, or a folder of ReadWritePaths= is not there.
    """
    system = "strict" if service.dynamic_user else service.protect_system
    home = service.protect_home if service.protect_home != "no" or not service.dynamic_user else "read-only"
    linux.own_mounts()
    _show_hidden(folders.hidden(service), private)
    # Those that ProtectHome= is about are not ProtectSystem='s.
    kept = [*_existing(service.read_write), *writable, *filter(os.path.isdir, _HOMES)]
    if private is not None:
        # The folder of both is below one of them, which therefore comes last.
        for place in _TEMPORARY:
            inside = private / place.strip("/").replace("/", "-")
            inside.mkdir(exist_ok=True)
            inside.chmod(0o1777)
            linux.mount(str(inside), place, None, linux.MS_BIND)
        kept += _TEMPORARY
    for folder in kept:
        if folder not in _TEMPORARY:
            # A mount of its own, which can be writable where the one around it is not.
            linux.mount(folder, folder, None, linux.MS_BIND | linux.MS_REC)
    if system == "strict":
        _read_only_but([*kept, "/run"] if service.api_mounts else kept)
    for folder in _SYSTEM.get(system, ()):
        _bind_read_only(folder)
    for folder in _HOMES:
        if home == "read-only":
            _bind_read_only(folder)
        elif home in ("yes", "tmpfs") and Path(folder).is_dir():
            bits = "000" if home == "yes" else "755"
            flags = linux.MS_RDONLY | linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
            linux.mount("tmpfs", folder, "tmpfs", flags, f"mode={bits}")


def _show_hidden(hidden: Sequence[tuple[Path, str]], private: Path | None) -> None:
    """Make folders reachable that lie in one which is root's alone, and none of the others there."""
    if private is None:
        return
    held = []
    for number, (root, name) in enumerate(hidden):
        place = private / f"hidden-{number}"
        place.mkdir(exist_ok=True)
        linux.mount(str(root / name), str(place), None, linux.MS_BIND)
        held.append((place, root / name))
    for root in dict.fromkeys(root for root, _ in hidden):
        linux.mount("tmpfs", str(root), "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=755")
    for place, target in held:
        target.mkdir(parents=True)
        linux.mount(str(place), str(target), None, linux.MS_BIND)


def mount_points(text: str) -> list[str]:
    """Return the mount points of /proc/self/mountinfo, in their order."""
    fields = [line.split()[4] for line in text.splitlines() if line]
    return [_OCTAL.sub(lambda match: chr(int(match[1], 8)), point) for point in fields]


def _existing(paths: Sequence[str]) -> list[str]:
    found = []
    for path in paths:
        plain = path.removeprefix("-")
        if Path(plain).exists():
            found.append(str(Path(plain).resolve()))
        elif not path.startswith("-"):
            raise FileNotFoundError(f"ReadWritePaths={plain}: no such folder")
    return found


def _read_only_but(kept: Sequence[str]) -> None:
    for point in dict.fromkeys(mount_points(Path("/proc/self/mountinfo").read_text())):
        if not _below(point, _INTERFACES) and not _below(point, kept):
            _make_read_only(point)


def _make_read_only(point: str) -> None:
    try:
        linux.read_only(point)
    except OSError as error:
        # Not what the path leads to: another mount lies over it, which is in the list as well.
        if error.errno not in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR):
            raise


def _bind_read_only(folder: str) -> None:
    if Path(folder).is_dir() and not Path(folder).is_symlink():
        linux.mount(folder, folder, None, linux.MS_BIND | linux.MS_REC)
        linux.read_only(folder)


def _below(path: str, folders: Sequence[str]) -> bool:
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)
