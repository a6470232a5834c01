"""Rules over what the probe (plugins/modules/kvstrata_probe.py) saw on one host."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kvstrata.kvrocks.affinity import judge_affinity
from kvstrata.preflight.memory import judge_memory
from kvstrata.preflight.problem import Problem

_PORTS = range(1024, 65536)


@dataclass(frozen=True)
class Wanted:
    """What the inventory wants of a host."""

    systems: Mapping[str, Sequence[str]]
    """Supported releases by distribution id of /etc/os-release, as {"debian": ["12"]}."""
    python: str
    fabric_address: str
    model_path: str
    drives: Sequence[Mapping[str, Any]]
    ports: Sequence[Mapping[str, Any]]
    memory: Mapping[str, Any]
    """What the memory budget is made of, see kvstrata.preflight.memory."""


def judge_host(where: str, wanted: Wanted, probe: Mapping[str, Any]) -> list[Problem]:
    """Return every reason why `where` cannot be deployed as the inventory says."""
    problems = _system(where, wanted.systems, probe["os"])
    problems += _python(where, wanted.python, probe["pythons"])
    problems += _address(where, wanted.fabric_address, probe["addresses"])
    problems += _model(where, wanted.model_path, probe["paths"])
    for drive in wanted.drives:
        problems += judge_drive(where, drive, probe["devices"][drive["device"]])
    problems += judge_affinity(where, wanted.drives, probe)
    problems += judge_memory(where, wanted.memory, probe["memory"])
    problems += _claims(where, wanted.ports)
    for port in wanted.ports:
        problems += _port(where, port, probe["ports"][str(port["port"])])
    return problems


def judge_drive(where: str, drive: Mapping[str, Any], seen: Mapping[str, Any]) -> list[Problem]:
    """Return why a drive may not be taken: absent, not a whole drive, in use, or holding somebody's data.

    A drive that carries our own file system, known by its label, is taken as it is and never formatted.
    """
    variable = f"kvstrata_drives[{drive['name']}].device"
    device = drive["device"]

    def refuse(allowed: str) -> list[Problem]:
        return [Problem(where, variable, device, allowed)]

    if not seen["exists"]:
        return refuse("a device that exists on the host; this one does not")
    if not seen["block"]:
        return refuse("a block device; this is something else")
    if not seen["whole"]:
        return refuse("a whole drive, not a partition")
    if seen["partitions"]:
        return refuse(f"a drive without partitions; this one has {', '.join(seen['partitions'])}")
    if seen["holders"]:
        return refuse(f"a drive that nothing else uses; this one is held by {', '.join(seen['holders'])}")
    own = is_own(drive, seen)
    foreign = [mount for mount in seen["mounts"] if mount != drive["mount"]]
    if foreign or (seen["mounts"] and not own):
        return refuse(f"a drive that is not mounted elsewhere; this one is mounted at {', '.join(seen['mounts'])}")
    if seen["swap"]:
        return refuse("a drive that is not swap space; this one is")
    if seen["signatures"] and not own:
        found = ", ".join(signature["type"] for signature in seen["signatures"])
        return refuse(
            f"a blank drive, or one that kvstrata made; this one carries: {found}. kvstrata never formats a drive "
            f"that holds data: look at it (wipefs {device}), and clear it yourself if it is really free"
        )
    return []


def is_own(drive: Mapping[str, Any], seen: Mapping[str, Any]) -> bool:
    """Tell whether the drive carries the file system that kvstrata made for it, and nothing else."""
    signatures = seen["signatures"]
    return len(signatures) == 1 and (signatures[0]["type"], signatures[0]["label"]) == (
        drive["fstype"],
        label_of(drive["name"]),
    )


def label_of(name: str) -> str:
    """Return the file system label of a drive; names have at most 8 characters, XFS labels 12."""
    return f"kvs-{name}"


def _system(where: str, systems: Mapping[str, Sequence[str]], seen: Mapping[str, str]) -> list[Problem]:
    if seen["version_id"] in systems.get(seen["id"], ()):
        return []
    allowed = ", ".join(f"{name} {'/'.join(releases)}" for name, releases in systems.items())
    return [Problem(where, "operating system", f"{seen['id']} {seen['version_id']}", allowed)]


def _python(where: str, wanted: str, seen: Mapping[str, str]) -> list[Problem]:
    if wanted in seen:
        return []
    given = ", ".join(sorted(seen)) or "none"
    return [Problem(where, "Python of the node", given, f"{wanted}, as the wheelhouse of artifacts.lock.yml needs")]


def _address(where: str, wanted: str, seen: Sequence[str]) -> list[Problem]:
    if wanted in seen:
        return []
    return [Problem(where, "kvstrata_fabric_address", wanted, f"an address of the host: {', '.join(seen)}")]


def _model(where: str, wanted: str, seen: Mapping[str, Mapping[str, bool]]) -> list[Problem]:
    if not seen[wanted]["directory"]:
        return [Problem(where, "kvstrata_model.path", wanted, "a directory that exists on the host; this one does not")]
    if not seen[f"{wanted}/config.json"]["exists"]:
        return [Problem(where, "kvstrata_model.path", wanted, "a model directory; this one has no config.json")]
    return []


def _port(where: str, port: Mapping[str, Any], seen: Sequence[Mapping[str, str]]) -> list[Problem]:
    others = [f"{user['process']} ({user['unit'] or 'no unit'})" for user in seen if user["unit"] != port["unit"]]
    if not others:
        return []
    allowed = f"a free port; on this one listens {', '.join(sorted(set(others)))}"
    return [Problem(where, f"{port['variable']} ({port['unit']})", port["port"], allowed)]


def _claims(where: str, ports: Sequence[Mapping[str, Any]]) -> list[Problem]:
    problems = []
    users: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for port in ports:
        users[int(port["port"])].append(port)
        if int(port["port"]) not in _PORTS:
            allowed = f"a port from {_PORTS.start} to {_PORTS.stop - 1}"
            problems.append(Problem(where, f"{port['variable']} ({port['unit']})", port["port"], allowed))
    for number, claims in users.items():
        if len(claims) > 1:
            names = " and ".join(f"{claim['variable']} ({claim['unit']})" for claim in claims)
            problems.append(Problem(where, names, number, "a port of its own for each unit of a host"))
    return problems
