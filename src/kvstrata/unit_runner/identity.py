"""As whom a service runs, and with which environment: systemd.exec(5), "User/Group Identity" and "Environment"."""

from __future__ import annotations

import grp
import os
import pwd
import uuid
from dataclasses import dataclass
from pathlib import Path

from kvstrata.unit_runner import env_file, specifiers
from kvstrata.unit_runner.errors import StepError, UnitError
from kvstrata.unit_runner.service import FOLDER_ROOTS, Service

EXIT_GROUP, EXIT_USER = 216, 217
_NO_SHELLS = frozenset(
    {"/usr/sbin/nologin", "/sbin/nologin", "/bin/false", "/usr/bin/false", "/bin/true", "/usr/bin/true", ""}
)
# systemd's range for DynamicUser=: docs/UIDS-GIDS.md of its sources.
_DYNAMIC_FIRST, _DYNAMIC_LAST = 61184, 65519
# What systemd is built with, for a host that says nothing.
_DEFAULT_LOCALE = "C.UTF-8"
_LOCALES = (Path("/etc/locale.conf"), Path("/etc/default/locale"))


@dataclass(frozen=True)
class Identity:
    """A user with its groups. `name` is None for a service without User=, which runs as the runner does."""

    name: str | None
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str | None = None
    shell: str | None = None


def of_service(service: Service, own_uid: int, own_gid: int) -> Identity:
    """Return as whom a service runs.

    Raises:
        StepError: user or group are not on this host, or only root could become that user.
    """
    more = tuple(_gid(name) for name in service.supplementary)
    if service.dynamic_user and service.user is None:
        name, uid = service.name.rpartition(".")[0].partition("@")[0], _free_uid(service.name)
        found = Identity(name, uid, uid, (uid, *more))
    elif service.user is None:
        gid = _gid(service.group) if service.group else own_gid
        return Identity(None, own_uid, gid, more)
    else:
        entry = _user(service.user)
        gid = _gid(service.group) if service.group else entry.pw_gid
        groups = tuple(os.getgrouplist(entry.pw_name, gid))
        home = entry.pw_dir if entry.pw_dir.startswith("/") and entry.pw_dir != "/" else None
        shell = None if entry.pw_shell in _NO_SHELLS else entry.pw_shell
        found = Identity(entry.pw_name, entry.pw_uid, gid, (*groups, *more), home, shell)
    if own_uid not in (0, found.uid):
        raise StepError(EXIT_USER, f"User={found.name} of {service.name}: the runner is user {own_uid}; allowed: root")
    return found


def environment(
    service: Service, identity: Identity, default_path: str, *, notify: str | None = None
) -> dict[str, str]:
    """Return the environment of a service's processes; what is in several places is taken from the later one.

    Raises:
        StepError: a file of EnvironmentFile= cannot be read.
    """
    found = {"PATH": default_path, **locale()}
    if identity.name is not None:
        found |= {"USER": identity.name, "LOGNAME": identity.name}
        found |= {name: value for name, value in (("HOME", identity.home), ("SHELL", identity.shell)) if value}
    found["INVOCATION_ID"] = uuid.uuid4().hex
    if service.credentials:
        found["CREDENTIALS_DIRECTORY"] = str(specifiers.CREDENTIALS / service.name)
    for directive, (root, _, variable) in FOLDER_ROOTS.items():
        if directive in service.folders and service.folders[directive].names:
            found[variable] = ":".join(str(root / name) for name in sorted(service.folders[directive].names))
    if notify is not None:
        found["NOTIFY_SOCKET"] = notify
    return found | dict(service.environment) | _from_files(service)


def locale(files: tuple[Path, ...] = _LOCALES) -> dict[str, str]:
    """Return the variables of the host's locale, as the manager passes them on."""
    for file in files:
        if file.is_file():
            read = env_file.parse(file.read_text(), str(file))
            found = {name: read[name] for name in read if name in ("LANG", "LANGUAGE") or name.startswith("LC_")}
            if found:
                return found
    return {"LANG": _DEFAULT_LOCALE}


def _from_files(service: Service) -> dict[str, str]:
    found: dict[str, str] = {}
    for path, may_miss in service.environment_files:
        try:
            found |= env_file.parse(Path(path).read_text(), path)
        except FileNotFoundError:
            if not may_miss:
                raise StepError(1, f"EnvironmentFile={path} of {service.name}: no such file") from None
        except UnitError as error:
            raise StepError(1, str(error)) from error
    return found


def _user(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
    except KeyError:
        raise StepError(EXIT_USER, f"User={name}: no such user on this host") from None


def _gid(name: str) -> int:
    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise StepError(EXIT_GROUP, f"Group={name}: no such group on this host") from None


def _free_uid(name: str) -> int:
    """Return a user id for a unit with DynamicUser=, the same each time, and one that nobody has."""
    taken = {entry.pw_uid for entry in pwd.getpwall()} | {entry.gr_gid for entry in grp.getgrall()}
    size = _DYNAMIC_LAST - _DYNAMIC_FIRST + 1
    start = uuid.uuid5(uuid.NAMESPACE_OID, name).int % size
    for step in range(size):
        if (uid := _DYNAMIC_FIRST + (start + step) % size) not in taken:
            return uid
    raise StepError(EXIT_USER, f"DynamicUser= of {name}: no free user id from {_DYNAMIC_FIRST} to {_DYNAMIC_LAST}")
