"""Calls of Linux that Python's standard library does not have: mounts, capabilities, memory policy, I/O priority."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_SLAVE = 1, 2, 4, 8, 4096, 16384, 1 << 19
_ATTR_RDONLY = 1
_PR_SET_KEEPCAPS, _PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_SUBREAPER, _PR_NO_NEW_PRIVS, _PR_AMBIENT = (
    8,
    23,
    24,
    36,
    38,
    47,
)
_AMBIENT_RAISE = 2
_CAPABILITY_VERSION_3 = 0x20080522
_AT_FDCWD = -100
# Numbers of system calls: of x86-64, and of architectures with the generic table.
_SYSCALLS = {
    "x86_64": {"set_mempolicy": 238, "ioprio_set": 251, "mount_setattr": 442},
    "aarch64": {"set_mempolicy": 237, "ioprio_set": 30, "mount_setattr": 442},
}
POLICIES = {"default": 0, "preferred": 1, "bind": 2, "interleave": 3, "local": 4}
_NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
    "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
    "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
CAPABILITIES = _NAMES.split(" ")
"""In the order of their numbers, linux/capability.h."""

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _syscall(name: str, *arguments: object) -> None:
    table = _SYSCALLS.get(platform.machine())
    if table is None:
        raise OSError(f"{name}: not known for {platform.machine()}; allowed: {', '.join(_SYSCALLS)}")
    _checked(_libc.syscall(ctypes.c_long(table[name]), *arguments), name)


def own_mounts() -> None:
    """Give this process mounts of its own, of which no other sees a change."""
    _checked(_libc.unshare(0x00020000), "unshare")
    mount(None, "/", None, MS_REC | MS_SLAVE)


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """See mount(2); raises OSError."""
    raw = [None if text is None else text.encode() for text in (source, target, kind, data)]
    _checked(_libc.mount(raw[0], raw[1], raw[2], ctypes.c_ulong(flags), raw[3]), f"mount {target}")


def read_only(target: str) -> None:
    """Make one mount read-only, and leave its other options: mount_setattr(2), Linux 5.12."""
    attributes = struct.pack("<QQQQ", _ATTR_RDONLY, 0, 0, 0)
    _syscall(
        "mount_setattr",
        ctypes.c_int(_AT_FDCWD),
        target.encode(),
        ctypes.c_uint(0),
        attributes,
        ctypes.c_size_t(len(attributes)),
    )


def subreaper() -> None:
    """Have this process become the parent of descendants whose parents end."""
    _checked(_libc.prctl(_PR_SUBREAPER, 1, 0, 0, 0), "prctl")


def no_new_privileges() -> None:
    """Never get more by execve(2) than this process has."""
    _checked(_libc.prctl(_PR_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")


def keep_capabilities() -> None:
    """Keep permitted capabilities through the next setuid(2)."""
    _checked(_libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0), "prctl")


def bound_capabilities(kept: Iterable[int]) -> None:
    """Drop all but `kept` from the bounding set, and all from the inheritable one."""
    keep = set(kept)
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    for number in range(last + 1):
        if number not in keep and _libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) == 1:
            _checked(_libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0), f"dropping capability {number}")


def ambient_capabilities(raised: Iterable[int]) -> None:
    """Have these capabilities, and pass them on through execve(2) of a user that is not root."""
    numbers = sorted(raised)
    low = sum(1 << number for number in numbers if number < 32)
    high = sum(1 << (number - 32) for number in numbers if number >= 32)
    header = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
    _checked(_libc.capset(header, struct.pack("<6I", low, low, low, high, high, high)), "capset")
    for number in numbers:
        _checked(_libc.prctl(_PR_AMBIENT, _AMBIENT_RAISE, number, 0, 0), f"ambient capability {number}")


def memory_policy(policy: str, nodes: Sequence[int]) -> None:
    """Take memory from these NUMA nodes: set_mempolicy(2)."""
    mask = sum(1 << node for node in nodes)
    most = max(nodes, default=0) + 2
    words = (ctypes.c_ulong * (most // 64 + 1))(*((mask >> shift) & (2**64 - 1) for shift in range(0, most + 1, 64)))
    _syscall(
        "set_mempolicy", ctypes.c_int(POLICIES[policy]), words if nodes else None, ctypes.c_ulong(most if nodes else 0)
    )


def io_priority(kind: int, priority: int) -> None:
    """Set class (0 none, 1 realtime, 2 best-effort, 3 idle) and priority of this process: ioprio_set(2)."""
    _syscall(
        "ioprio_set", ctypes.c_int(1), ctypes.c_int(0), ctypes.c_int(kind << 13 | (priority if kind in (1, 2) else 0))
    )
