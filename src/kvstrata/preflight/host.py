"""Rules over what kvstrata_probe and kvstrata_drive_guard (plugins/modules) saw on one host."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kvstrata.host.settings import is_known
from kvstrata.kvrocks.affinity import judge_affinity
from kvstrata.preflight.drives import refused_drives
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


def judge_host(where: str, wanted: Wanted, probe: Mapping[str, Any], guard: Mapping[str, Any]) -> list[Problem]:
    """Return every reason why `where` cannot be deployed as the inventory says.

    Args:
        where: the host.
        wanted: what the inventory says.
        probe: what kvstrata_probe saw.
        guard: what kvstrata_drive_guard says of the drives.
    """
    problems = _system(where, wanted.systems, probe["os"])
    problems += _python(where, wanted.python, probe["pythons"])
    problems += _address(where, wanted.fabric_address, probe["addresses"])
    problems += _model(where, wanted.model_path, probe["paths"])
    problems += refused_drives(where, wanted.drives, guard)
    problems += judge_affinity(where, wanted.drives, probe)
    problems += judge_memory(where, wanted.memory, probe["memory"])
    problems += _claims(where, wanted.ports)
    for port in wanted.ports:
        problems += _port(where, port, probe["ports"][str(port["port"])])
    return problems


def _system(where: str, systems: Mapping[str, Sequence[str]], seen: Mapping[str, str]) -> list[Problem]:
    if seen["version_id"] in systems.get(seen["id"], ()):
        return []
    allowed = ", ".join(f"{name} {'/'.join(releases)}" for name, releases in systems.items())
    if is_known(seen["id"], seen["version_id"]):
        allowed += "; this one is known to the roles of playbooks/hosts.yml alone, not to the services"
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
    # One that the deployment stops before it starts its own is not in the way.
    own = (port["unit"], port.get("replaces", port["unit"]))
    others = [f"{user['process']} ({user['unit'] or 'no unit'})" for user in seen if user["unit"] not in own]
    if not others:
        return []
    allowed = f"a free port; on this one listens {', '.join(sorted(set(others)))}"
    return [Problem(where, f"{port['variable']} ({port['unit']})", port["port"], allowed)]


def _claims(where: str, ports: Sequence[Mapping[str, Any]]) -> list[Problem]:
    problems = []
    users: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for port in ports:
        users[int(port["port"])].append(port)
        allowed_ports = range(1, _PORTS.stop) if port.get("privileged") else _PORTS
        if int(port["port"]) not in allowed_ports:
            allowed = f"a port from {allowed_ports.start} to {allowed_ports.stop - 1}"
            problems.append(Problem(where, f"{port['variable']} ({port['unit']})", port["port"], allowed))
    for number, claims in users.items():
        if len(claims) > 1:
            names = " and ".join(f"{claim['variable']} ({claim['unit']})" for claim in claims)
            problems.append(Problem(where, names, number, "a port of its own for each unit of a host"))
    return problems
