"""The host keys an operator trusts, each file read once: paramiko reads and compares all of it for every connection."""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass
from pathlib import Path

import paramiko
from paramiko.hostkeys import HostKeyEntry, InvalidHostKey

DEFAULT = Path("~/.ssh/known_hosts")
# OpenSSH's mark of a name that is kept as a salted hash.
HASHED = "|1|"
_reading = threading.Lock()


@dataclass(frozen=True)
class KnownHosts:
    """The lines of a file by the names they are for. `hashed` has the names that can only be tried."""

    plain: dict[str, list[str]]
    hashed: list[tuple[str, str]]

    def keys(self, name: str) -> list[paramiko.PKey]:
        """The keys of `name`, a host, or [host]:port for another port than 22; the first of each type counts."""
        lines = list(self.plain.get(name, ()))
        lines += [line for hidden, line in self.hashed if _is_hash_of(hidden, name)]
        entries = [_entry(line) for line in lines]
        found: dict[str, paramiko.PKey] = {}
        for entry in entries:
            if entry is not None and entry.key is not None:
                found.setdefault(entry.key.get_name(), entry.key)
        return list(found.values())


def known_hosts(path: Path | None) -> KnownHosts:
    """What `path` holds, or the user's own file, which may be missing. Raises OSError."""
    own = path is None
    file = DEFAULT.expanduser() if path is None else path
    try:
        stat = file.stat()
    except FileNotFoundError:
        if own:
            return KnownHosts({}, [])
        raise
    # Many nodes connect at once: one of them reads.
    with _reading:
        return _read(file, (stat.st_mtime_ns, stat.st_size))


@functools.lru_cache(maxsize=8)
def _read(file: Path, state: tuple[int, int]) -> KnownHosts:  # noqa: ARG001 - another state, another reading
    plain: dict[str, list[str]] = {}
    hashed: list[tuple[str, str]] = []
    # A line of another encoding must not hide the others.
    for line in map(str.strip, file.read_text(errors="replace").splitlines()):
        names = line.split(maxsplit=1)[:1]
        if not names or names[0].startswith("#"):
            continue
        for name in names[0].split(","):
            if name.startswith(HASHED):
                hashed.append((name, line))
            else:
                plain.setdefault(name, []).append(line)
    return KnownHosts(plain, hashed)


def _is_hash_of(hidden: str, name: str) -> bool:
    try:
        return paramiko.HostKeys.hash_host(name, hidden) == hidden
    except (ValueError, IndexError, AssertionError):
        return False


def _entry(line: str) -> HostKeyEntry | None:
    # A line that can't be read trusts nobody, and says nothing about the others.
    try:
        return HostKeyEntry.from_line(line)
    except (paramiko.SSHException, InvalidHostKey, ValueError):
        return None
