"""Whether each unit runs on the CPUs and with the memory that inventory and NUMA map give it.

Three places must agree: what the roles render from inventory and map, what systemd was told, what the process has.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeGuard

from kvstrata.affinity import cpus, directives
from kvstrata.cluster import Node, Numa, Store
from kvstrata.host.placement import cache_directives, drive_node, gpu_node
from kvstrata.verify.check import Check, Json, NotCheckedError, UnmetError
from kvstrata.verify.context import NodeContext
from kvstrata.verify.layers.host.services import shown
from kvstrata.verify.layers.host.survey import Survey

# systemd's names, and those of the kernel in /proc/PID/numa_maps (mpol_to_str).
_KERNEL_POLICY = {"preferred": "prefer", "bind": "bind", "interleave": "interleave", "local": "local"}
_UNSET = frozenset({"", "n/a", "default"})
_ALLOWED = re.compile(r"^(Cpus|Mems)_allowed_list:\s*(\S*)", re.MULTILINE)
# The first line of numa_maps is of the program's own text, which has the process' policy.
_POLICY = re.compile(r"^[0-9a-f]+ ([a-z]+)(?: \(many\))?(?:=\w+)?(?::([0-9,-]+))? ", re.MULTILINE)


@dataclass(frozen=True)
class Placement:
    """CPUs (none: any), memory policy by systemd's name (empty: the kernel's default), and its nodes."""

    cpus: frozenset[int] = frozenset()
    policy: str = ""
    nodes: frozenset[int] = frozenset()

    def __str__(self) -> str:
        """Return it in words."""
        memory = f", memory {self.policy} of node {listed(self.nodes)}" if self.policy else ""
        return f"CPUs {listed(self.cpus) if self.cpus else 'any'}{memory}"


@dataclass(frozen=True)
class Running:
    """What a process has: CPUs, nodes that it may have memory of, and its policy as the kernel names it."""

    cpus: frozenset[int]
    nodes: frozenset[int]
    policy: str | None
    """None where the kernel does not tell."""
    policy_nodes: frozenset[int] = frozenset()


def listed(numbers: frozenset[int]) -> str:
    """Numbers as the kernel lists them, "0-3,8"."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(f"{low}" if low == high else f"{low}-{high}" for low, high in parts)


def numbers(text: str) -> frozenset[int]:
    """The numbers of a list, also of systemd's with spaces; none of an empty one."""
    found = ",".join(text.split())
    return frozenset(cpus(found)) if found else frozenset()


def running(text: str) -> Running | None:
    """What a process has, by the lines of its /proc folder; None where there is no such process."""
    allowed = dict(_ALLOWED.findall(text))
    if "Cpus" not in allowed:
        return None
    policy = _POLICY.search(text)
    return Running(
        numbers(allowed["Cpus"]),
        numbers(allowed.get("Mems", "")),
        policy[1] if policy else None,
        numbers(policy[2] or "") if policy else frozenset(),
    )


def told(values: Mapping[str, str]) -> Placement:
    """What systemd was told of a unit, by `systemctl show`."""
    policy = values.get("NUMAPolicy", "")
    unset = policy in _UNSET
    return Placement(
        numbers(values.get("CPUAffinity", "")),
        "" if unset else policy,
        frozenset() if unset else numbers(values.get("NUMAMask", "")),
    )


def rendered(node: Node, numa: Mapping[str, Any]) -> dict[str, Placement]:
    """How the roles place each unit of a node (kvstrata.host.placement).

    Not in it are units of which the description does not tell, and those that the inventory leaves to the operator.
    """
    found = {
        store.unit: _lines(_store(node, store, store.numa, numa), numa) for store in node.stores if _ours(store.numa)
    }
    for engine in node.engines:
        if _ours(engine.numa):
            on = gpu_node(numa, engine.gpus)
            found[engine.unit] = _lines([] if on is None else directives([on], engine.numa.policy), numa)
    if node.lmcache and _ours(node.lmcache.numa):
        found[node.lmcache.unit] = _lines(cache_directives(numa, node.lmcache.numa.policy), numa)
    return found


def _ours(given: Numa | None) -> TypeGuard[Numa]:
    return given is not None and (given.policy != "none" or given.cpus is not None)


def _store(node: Node, store: Store, given: Numa, numa: Mapping[str, Any]) -> list[str]:
    mount = next((mount for mount in node.mounts if mount.path.rpartition("/")[2] == store.drive), None)
    devices = (mount.devices or (mount.device,)) if mount else ()
    of_drive = drive_node(numa, [device for device in devices if device])
    on = given.node if given.node is not None or given.cpus is not None else of_drive
    nodes = [] if on is None or given.policy == "none" else [on]
    return directives(nodes, given.policy, wanted_cpus=given.cpus)


def _lines(lines: Sequence[str], numa: Mapping[str, Any]) -> Placement:
    values = dict(line.split("=", 1) for line in lines)
    nodes = numbers(values.get("NUMAMask", ""))
    wanted = values.get("CPUAffinity", "")
    if wanted == "numa":
        of_nodes = (numbers(numa.get("nodes", {}).get(str(node), {}).get("cpus", "")) for node in nodes)
        return Placement(frozenset().union(*of_nodes), values.get("NUMAPolicy", ""), nodes)
    return Placement(numbers(wanted), values.get("NUMAPolicy", ""), nodes)


def checks(ctx: NodeContext, survey: Survey) -> Iterator[Check]:
    """One row for all units of a node."""
    if not ctx.node.units:
        return
    data: dict[str, Json] = {}
    yield ctx.question(
        "host.numa",
        "NUMA placement of the units",
        "each unit on the CPUs and with the memory that inventory and NUMA map give it",
        ctx.command(
            "systemctl show --property=Id,CPUAffinity,NUMAPolicy,NUMAMask,AllowedCPUs,DropInPaths "
            + " ".join(ctx.node.units)
        ),
    ).ask(partial(_probe, ctx.node, survey, data), data)


def _probe(node: Node, survey: Survey, data: dict[str, Json]) -> str:
    units, first = shown(survey), running(survey.get("process 1"))
    fact = survey.get("numa")
    wanted = rendered(node, json.loads(fact) if fact else {})
    problems, seen, placed = [], 0, 0
    for unit, values in units.items():
        has = running(survey.get(f"process {values.get('MainPID', '0')}"))
        if has is None or first is None:
            continue
        seen += 1
        asked = told(values)
        placed += asked != Placement()
        data[unit] = {"cpus": listed(has.cpus), "memory": has.policy}
        problem = _differs(wanted.get(unit), asked, values) or _strays(asked, has, first)
        if problem:
            problems.append(f"{unit} {problem}")
    if problems:
        raise UnmetError("; ".join(problems))
    if not seen:
        raise NotCheckedError("where any unit runs: none of them has a process")
    where = f", {placed} of them placed" if placed else ", none placed"
    nodes = listed(first.nodes) if first else "unknown"
    return f"{seen} units run where they are to{where}; NUMA nodes of the machine: {nodes}"


def _differs(wanted: Placement | None, asked: Placement, values: Mapping[str, str]) -> str:
    """How systemd was told otherwise than the roles render, or nothing."""
    by = values.get("DropInPaths", "")
    source = f" (drop-ins: {by})" if by else ""
    if wanted is not None and asked != wanted:
        return f"is told {asked}{source}; inventory and NUMA map give it {wanted}"
    if values.get("AllowedCPUs"):
        return f"is told AllowedCPUs={values['AllowedCPUs']}{source}, which no role writes"
    return ""


def _strays(asked: Placement, has: Running, first: Running) -> str:
    """How the process has something else than systemd was told, or nothing."""
    # A container's share of its host bounds every process in it. CPUs that the kernel keeps free (isolcpus) are not
    # those of process 1, and a unit has them when it is told so.
    due = [each for each in (asked.cpus & first.cpus, asked.cpus) if each] or [first.cpus]
    if has.cpus not in due:
        return f"runs on CPUs {listed(has.cpus)}; systemd was told {asked}, which are {listed(due[0])}"
    if asked.nodes - has.nodes:
        return f"may have memory of node {listed(has.nodes)} alone; systemd was told {asked}"
    wanted = (_KERNEL_POLICY.get(asked.policy), asked.nodes)
    if asked.policy and has.policy is not None and (has.policy, has.policy_nodes) != wanted:
        memory = f"{has.policy} {listed(has.policy_nodes)}".strip()
        return f"has the memory policy {memory}; systemd was told {asked}"
    return ""
