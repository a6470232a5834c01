"""Folders and credentials that systemd makes for a service before it starts, and takes away behind it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from kvstrata.unit_runner import specifiers
from kvstrata.unit_runner.errors import StepError
from kvstrata.unit_runner.identity import Identity
from kvstrata.unit_runner.service import FOLDER_ROOTS, Service

_EXIT = {
    "RuntimeDirectory": 233,
    "StateDirectory": 238,
    "CacheDirectory": 239,
    "LogsDirectory": 240,
    "ConfigurationDirectory": 241,
}
EXIT_CREDENTIALS = 243
_HIDDEN = ("StateDirectory", "CacheDirectory", "LogsDirectory")


def prepare(service: Service, identity: Identity) -> None:
    """Make folders and credentials.

    Raises:
        StepError: one cannot be made, or a file of LoadCredential= cannot be read.
    """
    for directive, folders in service.folders.items():
        try:
            for name in folders.names:
                _folder(service, identity, directive, name, folders.mode)
        except OSError as error:
            raise StepError(_EXIT[directive], f"{directive}= of {service.name}: {error}") from error
    if service.credentials:
        try:
            _credentials(service, identity)
        except OSError as error:
            raise StepError(EXIT_CREDENTIALS, f"LoadCredential= of {service.name}: {error}") from error


def clear(service: Service, *, restarting: bool) -> None:
    """Take away what does not outlive the service."""
    shutil.rmtree(specifiers.CREDENTIALS / service.name, ignore_errors=True)
    kept = service.runtime_preserve == "yes" or (service.runtime_preserve == "restart" and restarting)
    runtime = service.folders.get("RuntimeDirectory")
    if runtime and not kept:
        for name in runtime.names:
            shutil.rmtree(FOLDER_ROOTS["RuntimeDirectory"][0] / name, ignore_errors=True)


def writable(service: Service) -> list[str]:
    """Return the folders that the service may write whatever ProtectSystem= says."""
    return [
        str((FOLDER_ROOTS[directive][0] / name).resolve())
        for directive, folders in service.folders.items()
        for name in folders.names
    ]


def hidden(service: Service) -> list[tuple[Path, str]]:
    """Return the folders that only a service with DynamicUser= sees: where they are, and their name there."""
    if not service.dynamic_user:
        return []
    return [
        (FOLDER_ROOTS[directive][0] / "private", name)
        for directive in _HIDDEN
        if directive in service.folders
        for name in service.folders[directive].names
    ]


def _folder(service: Service, identity: Identity, directive: str, name: str, mode: int) -> None:
    root = FOLDER_ROOTS[directive][0]
    target = root / name
    # A user who is gone tomorrow leaves nothing that another could open who is given the same number.
    if service.dynamic_user and directive in _HIDDEN:
        (root / "private").mkdir(mode=0o700, exist_ok=True)
        real = root / "private" / name
        _make_parents(real.parent, root / "private")
        _make_parents(target.parent, root)
        if not target.is_symlink() and not target.exists():
            target.symlink_to(os.path.relpath(real, target.parent))
        target = real
    else:
        _make_parents(target.parent, root)
    made = not target.is_dir()
    if made:
        target.mkdir()
    # An administrator's configuration stays as it is.
    if made or directive != "ConfigurationDirectory":
        target.chmod(mode)
        _own(target, identity)


def _make_parents(folder: Path, root: Path) -> None:
    missing = [each for each in (folder, *folder.parents) if each.is_relative_to(root) and not each.is_dir()]
    for each in reversed(missing):
        each.mkdir()
        each.chmod(0o755)


def _own(folder: Path, identity: Identity) -> None:
    """Give the folder to the user; with all that is in it where it was another's."""
    status = folder.stat()
    if (status.st_uid, status.st_gid) == (identity.uid, identity.gid):
        return
    for base, inner, names in os.walk(folder):
        for name in (*inner, *names):
            os.chown(Path(base, name), identity.uid, identity.gid, follow_symlinks=False)
    os.chown(folder, identity.uid, identity.gid)


def _credentials(service: Service, identity: Identity) -> None:
    folder = specifiers.CREDENTIALS / service.name
    shutil.rmtree(folder, ignore_errors=True)
    if not specifiers.CREDENTIALS.is_dir():
        specifiers.CREDENTIALS.mkdir(mode=0o755, parents=True)
    folder.mkdir(mode=0o700)
    for name, source in service.credentials.items():
        file = folder / name
        file.touch(mode=0o400)
        file.write_bytes(Path(source).read_bytes())
        os.chown(file, identity.uid, identity.gid)
    os.chown(folder, identity.uid, identity.gid)
    folder.chmod(0o500)
