"""One process of a unit: made with all that systemd.exec(5) says of it, then the program in its place."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from kvstrata.unit_runner import folders, linux, sandbox, words
from kvstrata.unit_runner.errors import StepError, UnitError
from kvstrata.unit_runner.identity import Identity
from kvstrata.unit_runner.service import Command, Service
from kvstrata.unit_runner.values import LIMITS

EXIT_CHDIR, EXIT_NICE, EXIT_EXEC, EXIT_LIMITS, EXIT_OOM = 200, 201, 203, 205, 206
EXIT_STDIN, EXIT_AFFINITY, EXIT_IOPRIO, EXIT_CAPABILITIES, EXIT_NAMESPACE, EXIT_NUMA = 208, 204, 211, 218, 226, 242
EXIT_NO_NEW_PRIVILEGES = 227
# systemd-system.conf(5): what units get that say nothing.
DEFAULT_LIMITS = {"LimitNOFILE": (1024, 524288), "LimitMEMLOCK": (8 << 20, 8 << 20)}


@dataclass(frozen=True)
class Place:
    """Where a unit's processes write, and what they share."""

    log: Path
    private: Path | None
    """For PrivateTmp=, where a unit has it."""


def spawn(service: Service, command: Command, identity: Identity, variables: Mapping[str, str], place: Place) -> int:
    """Start a command of the service; return its process once its program runs.

    Raises:
        StepError: it could not be made so, or its program not be run; with the code that systemd gives.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _become(service, command, identity, variables, place, writing)
    os.close(writing)
    with os.fdopen(reading) as stream:
        said = stream.read()
    if said:
        os.waitpid(pid, 0)
        found = json.loads(said)
        raise StepError(found["code"], found["message"])
    return pid


def out_of_reach(service: Service) -> tuple[str, ...]:
    """Return the limits of a service that this host does not let it have, and what it gets instead.

    systemd gives the closest as well, and says nothing.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        # In a process of its own: a limit that was lowered could not be raised again.
        try:
            os.close(reading)
            _limits(service)
            found = {name: resource.getrlimit(LIMITS[name]) for name in service.limits}
            os.write(writing, json.dumps(found).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        found = json.loads(stream.read() or "{}")
    os.waitpid(pid, 0)
    return tuple(
        f"{name}={_show_limit(wanted[1])}, this host allows {_show_limit(found[name][1])}"
        for name, wanted in service.limits.items()
        if name in found and tuple(found[name]) != wanted
    )


def _show_limit(value: int) -> str:
    return "infinity" if value == resource.RLIM_INFINITY else str(value)


def argv_of(command: Command, variables: Mapping[str, str]) -> list[str]:
    """Return the arguments as the program gets them; raises UnitError."""
    if command.no_variables:
        return list(command.argv)
    return words.substitute(command.argv, variables, command.where)


def _become(
    service: Service, command: Command, identity: Identity, variables: Mapping[str, str], place: Place, writing: int
) -> NoReturn:
    code, message = 1, "ended before its program ran"
    try:
        environment = {**variables, "SYSTEMD_EXEC_PID": str(os.getpid())}
        argv = argv_of(command, environment)
        _prepare(service, command, identity, place)
        os.execve(command.path, argv, environment)  # noqa: S606 - what ExecStart= names, without a shell
    except StepError as error:
        code, message = error.code, str(error)
    except UnitError as error:
        code, message = EXIT_EXEC, str(error)
    except OSError as error:
        code, message = EXIT_EXEC, f"{command.where}: {command.path}: {error.strerror}"
    except BaseException as error:
        message = f"{command.where}: {error!r}"
    os.write(writing, json.dumps({"code": code, "message": message}).encode())
    os._exit(code)


def _prepare(service: Service, command: Command, identity: Identity, place: Place) -> None:
    os.setsid()
    _signals()
    with _step(EXIT_STDIN, "standard output"):
        _streams(place.log)
    if service.oom_score_adjust is not None:
        with _step(EXIT_OOM, "OOMScoreAdjust="):
            Path("/proc/self/oom_score_adj").write_text(str(service.oom_score_adjust))
    if service.nice is not None:
        with _step(EXIT_NICE, "Nice="):
            os.setpriority(os.PRIO_PROCESS, 0, service.nice)
    _placement(service)
    with _step(EXIT_LIMITS, "Limit...="):
        _limits(service)
    if not command.privileged and sandbox.wanted(service):
        with _step(EXIT_NAMESPACE, "mounts of PrivateTmp=, ProtectSystem=, ProtectHome="):
            sandbox.enter(service, folders.writable(service), place.private)
    if not command.privileged:
        with _step(EXIT_CAPABILITIES, "capabilities, user and groups"):
            _identity(service, identity)
    # Not before: the folders of the sandbox are for others too.
    os.umask(service.umask)
    # As the user, who may not be allowed to see it.
    _working_directory(service, identity)
    if service.no_new_privileges or service.dynamic_user:
        with _step(EXIT_NO_NEW_PRIVILEGES, "NoNewPrivileges="):
            linux.no_new_privileges()


def _signals() -> None:
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError):
            signal.signal(number, signal.SIG_DFL)
    # IgnoreSIGPIPE= is on by default.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())


def _streams(log: Path) -> None:
    null = os.open("/dev/null", os.O_RDONLY)
    out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for source, target in ((null, 0), (out, 1), (out, 2)):
        os.dup2(source, target)
    os.close(null)
    os.close(out)


def _placement(service: Service) -> None:
    if service.numa_policy is not None and (service.numa_nodes or service.numa_policy in ("default", "local")):
        with _step(EXIT_NUMA, "NUMAPolicy="):
            linux.memory_policy(service.numa_policy, service.numa_nodes)
    cpus = service.cpus
    with _step(EXIT_AFFINITY, "CPUAffinity="):
        if service.cpus_of_numa:
            cpus = tuple(cpu for node in service.numa_nodes for cpu in _cpus_of(node))
        if cpus:
            os.sched_setaffinity(0, cpus)
    if service.io_class is not None:
        with _step(EXIT_IOPRIO, "IOSchedulingClass="):
            linux.io_priority(service.io_class, service.io_priority)


def _cpus_of(node: int) -> set[int]:
    from kvstrata.affinity import cpus

    return cpus(Path(f"/sys/devices/system/node/node{node}/cpulist").read_text().strip())


def _limits(service: Service) -> None:
    for name, number in LIMITS.items():
        wanted = service.limits.get(name, DEFAULT_LIMITS.get(name))
        if wanted is None:
            # What systemd's services inherit is the first process's, and not that of a shell.
            with contextlib.suppress(OSError):
                resource.setrlimit(number, resource.prlimit(1, number))
            continue
        try:
            resource.setrlimit(number, wanted)
        except (PermissionError, ValueError):
            # As systemd: the closest that this host lets it have.
            hard = resource.getrlimit(number)[1]
            soft, most = (hard if each == resource.RLIM_INFINITY or each > hard >= 0 else each for each in wanted)
            resource.setrlimit(number, (soft, most))


def _identity(service: Service, identity: Identity) -> None:
    ambient = {_capability(name) for name in service.ambient}
    if service.bounding is not None:
        linux.bound_capabilities(_capability(name) for name in service.bounding)
    if os.getuid() == 0:
        # Also of one without User=: it has none of whoever started the runner.
        os.setgroups(identity.groups)
        os.setresgid(identity.gid, identity.gid, identity.gid)
        if ambient:
            linux.keep_capabilities()
        os.setresuid(identity.uid, identity.uid, identity.uid)
    if ambient:
        linux.ambient_capabilities(ambient)


def _capability(name: str) -> int:
    plain = name.removeprefix("CAP_")
    if plain not in linux.CAPABILITIES:
        raise StepError(EXIT_CAPABILITIES, f"capability {name!r} is not known to this runner")
    return linux.CAPABILITIES.index(plain)


def _working_directory(service: Service, identity: Identity) -> None:
    folder = (identity.home or "/") if service.working_directory == "~" else service.working_directory
    try:
        os.chdir(folder)
    except OSError as error:
        if not service.working_directory_may_miss:
            raise StepError(EXIT_CHDIR, f"WorkingDirectory={folder} of {service.name}: {error.strerror}") from error
        os.chdir("/")


@contextlib.contextmanager
def _step(code: int, what: str):  # type: ignore[no-untyped-def]
    try:
        yield
    except OSError as error:
        raise StepError(code, f"{what}: {error}") from error
