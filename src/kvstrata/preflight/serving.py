"""Rules over the serving profile: one for the whole site, and no variable that the other one alone would read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kvstrata.preflight.problem import Problem

_PROFILE = "kvstrata_serving_profile"
_DYNAMO = re.compile(r"^ai-dynamo==", re.MULTILINE)
# The frontend takes the router's port, so that the endpoint stays where it was.
_SHARED = ("router_port",)


def profile_of(given: Mapping[str, Any]) -> str:
    """Return the serving profile of a host."""
    return str(given.get(_PROFILE, "router"))


def judge_profile(where: str, given: Mapping[str, Any]) -> list[Problem]:
    """Return a problem for each variable of a host that its profile would ignore."""
    profile = profile_of(given)
    ignored = ("router_",) if profile == "dynamo" else ("dynamo_", "etcd_", "vllm_mocker", "vllm_first_rpc_port")
    allowed = f"nothing while {_PROFILE} is {profile}"
    if profile == "dynamo":
        allowed += "; a frontend's own variables are dynamo_*, and what it weighs is dynamo_router_mode"
    problems = [
        Problem(where, name, given[name], allowed) for name in given if name.startswith(ignored) and name not in _SHARED
    ]
    server = given.get("vllm_server")
    servers = ("dynamo", "mocker") if profile == "dynamo" else ("openai",)
    if server is not None and server not in servers:
        problems.append(Problem(where, "vllm_server", server, f"{' or '.join(servers)} while {_PROFILE} is {profile}"))
    return problems


def judge_profiles(hosts: Mapping[str, Mapping[str, Any]], locks: Mapping[str, Path | None]) -> list[Problem]:
    """Return what is wrong with the profile of the site as a whole.

    Args:
        hosts: of each node its variables.
        locks: of each node the list of the wheels that it installs; None where no wheelhouse has its name.
    """
    profiles = {host: profile_of(given) for host, given in hosts.items()}
    if len(set(profiles.values())) > 1:
        return [Problem("inventory", _PROFILE, profiles, "one value for all nodes")]
    problems = []
    for host, profile in profiles.items():
        lock = locks.get(host)
        if profile == "dynamo" and lock is not None and not _DYNAMO.search(lock.read_text()):
            allowed = f"router, for {lock.name} has no ai-dynamo: add its wheels there (docs/dynamo.md)"
            problems.append(Problem(host, _PROFILE, profile, allowed))
    return problems
