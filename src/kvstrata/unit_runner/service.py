"""What a unit file asks for, as one service with typed fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kvstrata.unit_runner.values import INFINITY, Limit

FOLDER_ROOTS: Mapping[str, tuple[Path, int, str]] = {
    "RuntimeDirectory": (Path("/run"), 0o755, "RUNTIME_DIRECTORY"),
    "StateDirectory": (Path("/var/lib"), 0o755, "STATE_DIRECTORY"),
    "CacheDirectory": (Path("/var/cache"), 0o755, "CACHE_DIRECTORY"),
    "LogsDirectory": (Path("/var/log"), 0o755, "LOGS_DIRECTORY"),
    "ConfigurationDirectory": (Path("/etc"), 0o755, "CONFIGURATION_DIRECTORY"),
}
"""Where the folders of each directive are, their mode, and the variable that names them."""


@dataclass(frozen=True)
class Command:
    """One command line, with its specifiers replaced and its variables not yet."""

    argv: tuple[str, ...]
    path: str
    where: str
    may_fail: bool = False
    """`-`: a failure counts as success."""
    no_variables: bool = False
    """`:`: dollars mean nothing."""
    privileged: bool = False
    """`+`: without User=, credentials of others and sandbox."""


@dataclass(frozen=True)
class Folders:
    """The folders of one directive, and their mode."""

    names: tuple[str, ...] = ()
    mode: int = 0o755


@dataclass(frozen=True)
class Service:
    """A service. Defaults are those of systemd.service(5), systemd.exec(5) and systemd.kill(5)."""

    name: str
    files: tuple[Path, ...]
    description: str = ""
    after: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    wants: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    mounts_for: tuple[str, ...] = ()
    start_limit_s: float = 10.0
    start_limit_burst: int = 5

    type: str = "simple"
    remain: bool = False
    commands: Mapping[str, tuple[Command, ...]] = field(default_factory=dict)
    """By ExecStartPre, ExecStart, ExecStartPost, ExecReload, ExecStop, ExecStopPost."""
    restart: str = "no"
    restart_s: float = 0.1
    restart_steps: int = 0
    restart_most_s: float = INFINITY
    start_timeout_s: float = 90.0
    stop_timeout_s: float = 90.0
    kill_signal: int = 15
    kill_mode: str = "control-group"

    user: str | None = None
    group: str | None = None
    supplementary: tuple[str, ...] = ()
    dynamic_user: bool = False
    working_directory: str = "/"
    working_directory_may_miss: bool = False
    umask: int = 0o022
    environment: Mapping[str, str] = field(default_factory=dict)
    environment_files: tuple[tuple[str, bool], ...] = ()
    """Path, and whether it may be missing."""
    folders: Mapping[str, Folders] = field(default_factory=dict)
    runtime_preserve: str = "no"
    credentials: Mapping[str, str] = field(default_factory=dict)

    limits: Mapping[str, Limit] = field(default_factory=dict)
    nice: int | None = None
    oom_score_adjust: int | None = None
    cpus: tuple[int, ...] | None = None
    """None: all; () with numa: those of NUMAMask."""
    cpus_of_numa: bool = False
    numa_policy: str | None = None
    numa_nodes: tuple[int, ...] = ()
    io_class: int | None = None
    io_priority: int = 4
    no_new_privileges: bool = False
    bounding: frozenset[str] | None = None
    """Capabilities that it may ever have; None: all."""
    ambient: frozenset[str] = frozenset()
    private_tmp: bool = False
    protect_system: str = "no"
    protect_home: str = "no"
    read_write: tuple[str, ...] = ()
    api_mounts: bool = False
    """Something asks systemd for kernel file systems of its own, among which it counts /run."""

    not_applied: tuple[str, ...] = ()
    """Directives that only take possibilities away, and that the runner cannot apply."""

    @property
    def exec_start(self) -> Sequence[Command]:
        """Its main command; several for oneshot."""
        return self.commands.get("ExecStart", ())
