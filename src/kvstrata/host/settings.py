"""The variables of the role host: the kernel settings they come to, and which values cannot be."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from kvstrata.affinity import cpus
from kvstrata.preflight.problem import Problem

NOFILE = range(1024, 1073741817)
"""From what a service needs to the most that the kernel takes for fs.nr_open."""
NR_OPEN = 1048576
"""The kernel's default of fs.nr_open."""
HUGEPAGES_MIB = range(0, 1 << 26)
SYSTEMS = ("Debian 12", "Debian 13", "Ubuntu 22.04", "Ubuntu 24.04", "Rocky 9", "RedHat 9")
"""Where the role knows packages, paths and units; that says nothing of the services above it."""

# kernel.org, admin-guide/sysctl/vm: each is the counterpart of the other, and only one can be in force.
_COUNTERPARTS = {
    "vm.dirty_bytes": "vm.dirty_ratio",
    "vm.dirty_background_bytes": "vm.dirty_background_ratio",
}
_COUNTERPART = _COUNTERPARTS | {ratio: byte for byte, ratio in _COUNTERPARTS.items()}
_SYSCTL = re.compile(r"[a-z][a-z0-9_-]*(\.[A-Za-z0-9_/-]+)+")
_SERVER = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:-]*")


def is_known(distribution: str, version: str) -> bool:
    """Tell whether the role knows a system, by ID and VERSION_ID of its /etc/os-release ("rocky", "9.4")."""
    name = {"rhel": "redhat"}.get(distribution, distribution)
    return any(
        f"{name} {release}" in {each.lower() for each in SYSTEMS} for release in (version, version.split(".")[0])
    )


def sysctls(
    recommended: Mapping[str, Mapping[str, Any]], own: Mapping[str, Any], hugepages_mib: int = 0
) -> list[dict[str, Any]]:
    """Return the kernel settings of a host, as the module kvstrata_kernel takes them.

    Args:
        recommended: by name: value, and where it applies most_of_memory (a share of the host's memory that bounds the
            value) and where_present (a kernel without it is no error).
        own: values by name that replace or extend those; None leaves a setting alone.
        hugepages_mib: memory to reserve as huge pages; 0 leaves that alone.
    """
    dropped = set(own) | {
        _COUNTERPART[name] for name, value in own.items() if name in _COUNTERPART and value is not None
    }
    kept = {name: entry for name, entry in recommended.items() if name not in dropped}
    found = [
        {
            "name": name,
            "value": str(entry["value"]),
            "most_of_memory": float(entry.get("most_of_memory", 1)),
            "where_present": bool(entry.get("where_present", False)),
        }
        for name, entry in kept.items()
    ]
    found += [{"name": name, "value": str(value)} for name, value in own.items() if value is not None]
    if hugepages_mib:
        found.append({"name": "vm.nr_hugepages", "value": "", "mib": int(hugepages_mib)})
    return found


def judge_host_settings(where: str, given: Mapping[str, Any], system: Mapping[str, str] | None = None) -> list[Problem]:
    """Return what cannot work among the variables of the role host.

    Args:
        where: the host.
        given: its variables by name; what is absent is not judged.
        system: the host's system, family (of os_family) and release ("Debian 12"), where it is known.
    """
    problems = [
        Problem(where, name, given[name], allowed)
        for name, (good, allowed) in _RULES.items()
        if name in given and given[name] is not None and not good(given[name])
    ]
    own = given.get("host_sysctls")
    problems += _judge_nofile(where, given.get("host_nofile"), own if isinstance(own, Mapping) else {})
    if isinstance(own, Mapping):
        problems += _judge_sysctls(where, own, bool(given.get("host_hugepages_mib")))
    if system is not None:
        problems += _judge_system(where, given, system)
    return problems


def _is_cpu_list(text: Any) -> bool:
    try:
        return text == "" or bool(cpus(str(text)))
    except ValueError:
        return False


def _are_servers(names: Any) -> bool:
    return isinstance(names, list) and all(isinstance(name, str) and _SERVER.fullmatch(name) for name in names)


def _are_regexes(patterns: Any) -> bool:
    if not isinstance(patterns, list):
        return False
    try:
        # A quote would end the string of apt's configuration.
        return all(isinstance(pattern, str) and '"' not in pattern and re.compile(pattern) for pattern in patterns)
    except re.error:
        return False


def _is_in(allowed: range) -> Callable[[Any], bool]:
    # Ansible's numbers have a class of their own: without int(), a range compares them with each number in it.
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and int(value) in allowed


_RULES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "host_nofile": (_is_in(NOFILE), f"{NOFILE.start} to {NOFILE.stop - 1}"),
    "host_memlock": (
        lambda value: bool(re.fullmatch(r"infinity|[1-9][0-9]*[KMGT]?", str(value))),
        'infinity, or bytes as systemd has them: 1073741824, "512G"',
    ),
    "host_hugepages_mib": (_is_in(HUGEPAGES_MIB), f"{HUGEPAGES_MIB.start} to {HUGEPAGES_MIB.stop - 1} MiB, 0 for none"),
    "host_irqbalance_banned_cpus": (_is_cpu_list, 'CPUs and ranges of them, as "0-3,8"'),
    "host_ntp_servers": (_are_servers, "names and addresses of time servers"),
    "host_pinned_packages": (_are_regexes, "Python regular expressions without double quotes"),
    "host_time_wait_s": (_is_in(range(0, 601)), "0 to 600 seconds"),
}


def _judge_sysctls(where: str, own: Mapping[str, Any], hugepages: bool) -> Iterator[Problem]:
    for name, value in own.items():
        variable = f"host_sysctls[{name}]"
        if not isinstance(name, str) or not _SYSCTL.fullmatch(name):
            yield Problem(where, variable, value, 'names as sysctl has them, "vm.swappiness"')
        elif isinstance(value, bool) or not isinstance(value, int | str | None) or not _one_line(value):
            yield Problem(where, variable, value, "a number, a text of one line, or null to leave the setting alone")
        elif name in _COUNTERPARTS and own.get(_COUNTERPARTS[name]) is not None and value is not None:
            yield Problem(where, variable, value, f"either this or {_COUNTERPARTS[name]}: the kernel forgets the other")
        elif name == "vm.nr_hugepages" and hugepages and value is not None:
            yield Problem(where, variable, value, "either this or host_hugepages_mib")


def _judge_nofile(where: str, nofile: Any, own: Mapping[str, Any]) -> Iterator[Problem]:
    """No service would start with a limit above fs.nr_open."""
    if not _is_in(NOFILE)(nofile) or nofile <= NR_OPEN:
        return
    raised = own.get("fs.nr_open")
    if not isinstance(raised, int) or raised < nofile:
        yield Problem(where, "host_nofile", nofile, f"at most {NR_OPEN}, or host_sysctls[fs.nr_open] no less than it")


def _one_line(value: int | str | None) -> bool:
    return not isinstance(value, str) or (value.strip() != "" and "\n" not in value)


def _judge_system(where: str, given: Mapping[str, Any], system: Mapping[str, str]) -> Sequence[Problem]:
    problems = []
    if system["release"] not in SYSTEMS:
        problems.append(Problem(where, "operating system", system["release"], ", ".join(SYSTEMS)))
    if given.get("host_time_sync") == "timesyncd" and system["family"] == "RedHat":
        allowed = "chrony or none: Enterprise Linux has no systemd-timesyncd"
        problems.append(Problem(where, "host_time_sync", "timesyncd", allowed))
    return problems
