"""Directives that are one field of a Service each: how their value is read, and what is allowed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kvstrata.unit_runner import values
from kvstrata.unit_runner.errors import UnitError

TYPES = ("simple", "exec", "oneshot", "notify")
RESTARTS = ("no", "always", "on-success", "on-failure", "on-abnormal", "on-abort")
KILL_MODES = ("control-group", "mixed", "process", "none")
POLICIES = ("default", "preferred", "bind", "interleave", "local")
IO_CLASSES = ("none", "realtime", "best-effort", "idle")


def _text(value: str, _at: str) -> str:
    return value


def words(value: str, _at: str) -> tuple[str, ...]:
    """Return the words of a list, which an empty value resets."""
    return tuple(value.split())


def _one_of(*allowed: str) -> Callable[[str, str], str]:
    def read(value: str, at: str) -> str:
        if value not in allowed:
            raise UnitError(f"{at}: {value!r}; allowed: {', '.join(allowed)}")
        return value

    return read


def _between(low: int, high: int) -> Callable[[str, str], int]:
    return lambda value, at: values.number(value, at, low, high)


def _io_class(value: str, at: str) -> int:
    return int(value) if value in ("0", "1", "2", "3") else IO_CLASSES.index(_one_of(*IO_CLASSES)(value, at))


def _protection(*more: str) -> Callable[[str, str], str]:
    """Return how to read yes, no, or one of `more`."""
    return lambda value, at: value if value in more else "yes" if values.boolean(value, at) else "no"


Rule = tuple[str, Callable[[str, str], Any]]
UNIT: Mapping[str, Rule] = {
    "Description": ("description", _text),
    "After": ("after", words),
    "Before": ("before", words),
    "Wants": ("wants", words),
    "Requires": ("requires", words),
    "BindsTo": ("requires", words),
    "RequiresMountsFor": ("mounts_for", words),
    "StartLimitIntervalSec": ("start_limit_s", values.seconds),
    "StartLimitBurst": ("start_limit_burst", _between(0, 1 << 31)),
}
SERVICE: Mapping[str, Rule] = {
    "Type": ("type", _one_of(*TYPES)),
    "RemainAfterExit": ("remain", values.boolean),
    "Restart": ("restart", _one_of(*RESTARTS)),
    "RestartSec": ("restart_s", values.seconds),
    "RestartSteps": ("restart_steps", _between(0, 1 << 31)),
    "RestartMaxDelaySec": ("restart_most_s", values.seconds),
    "TimeoutStartSec": ("start_timeout_s", values.timeout),
    "TimeoutStopSec": ("stop_timeout_s", values.timeout),
    "KillSignal": ("kill_signal", values.signal_of),
    "KillMode": ("kill_mode", _one_of(*KILL_MODES)),
    "User": ("user", _text),
    "Group": ("group", _text),
    "SupplementaryGroups": ("supplementary", words),
    "DynamicUser": ("dynamic_user", values.boolean),
    "UMask": ("umask", values.mode),
    "RuntimeDirectoryPreserve": ("runtime_preserve", _protection("restart")),
    "Nice": ("nice", _between(-20, 19)),
    "OOMScoreAdjust": ("oom_score_adjust", _between(-1000, 1000)),
    "NUMAPolicy": ("numa_policy", _one_of(*POLICIES)),
    "IOSchedulingClass": ("io_class", _io_class),
    "IOSchedulingPriority": ("io_priority", _between(0, 7)),
    "NoNewPrivileges": ("no_new_privileges", values.boolean),
    "PrivateTmp": ("private_tmp", values.boolean),
    "ProtectSystem": ("protect_system", _protection("full", "strict")),
    "ProtectHome": ("protect_home", _protection("read-only", "tmpfs")),
    "ReadWritePaths": ("read_write", words),
}
