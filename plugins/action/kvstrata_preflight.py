"""Action `kvstrata_preflight`: judge the inventory, or what the probe saw on a host, on the controller."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from kvstrata.artifacts.lock import LockError, read_lock
from kvstrata.host.settings import judge_host_settings
from kvstrata.kvrocks.config import judge_settings
from kvstrata.paths import PROJECT
from kvstrata.plan.guard import host_of, judge_plan
from kvstrata.preflight import variables
from kvstrata.preflight.cache import judge_cache
from kvstrata.preflight.drives import judge_tokens, refused_drives
from kvstrata.preflight.edge import judge_client_networks, judge_edge, judge_edge_settings
from kvstrata.preflight.host import Wanted, judge_host
from kvstrata.preflight.nvme import judge_nvme
from kvstrata.preflight.problem import Problem, report
from kvstrata.preflight.serving import judge_profile, judge_profiles
from kvstrata.preflight.site import judge_site


class ActionModule(ActionBase):  # type: ignore[misc]
    """The action: judges one of `hosts`, `wanted`, `host`, `nvme`, `kvrocks`, `edge`, `plan`, `drives`.

    `guard` is what kvstrata_drive_guard or kvstrata_drive returned: its `drives` and its `refusals`.
    """

    _requires_connection = False
    _supports_check_mode = True
    _VALID_ARGS = frozenset(
        {"inventory", "hosts", "routers", "wanted", "probe", "guard", "drives", "kvrocks", "host", "system", "nvme"}
        | {"plan", "fact", "strict", "edge"}
    )

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fail with every problem at once, or change nothing and succeed."""
        super().run(tmp, task_vars)
        facts = task_vars or {}
        where = facts["inventory_hostname"]
        args = self._task.args
        if "hosts" in args:
            problems = self._variables(facts) or self._site(facts, args)
        elif "wanted" in args:
            problems = judge_host(where, Wanted(**args["wanted"]), args["probe"], args["guard"])
        elif "host" in args:
            problems = judge_host_settings(where, args["host"], args.get("system"))
        elif "kvrocks" in args:
            problems = judge_settings(where, args["kvrocks"])
        elif "nvme" in args:
            problems = judge_nvme(where, args["nvme"])
        elif "edge" in args:
            problems = judge_edge_settings(where, args["edge"])
        elif "plan" in args:
            return self._plan(where, args)
        else:
            problems = refused_drives(where, args["drives"], args["guard"])
        if problems:
            raise AnsibleActionFail(report(problems))
        return {"changed": False, "msg": "nothing to refuse"}

    def _plan(self, where: str, args: Mapping[str, Any]) -> dict[str, Any]:
        """Warn of tiers that are slower than computing, or refuse them where `strict` is true."""
        judged = judge_plan(where, host_of(args["plan"], args["probe"], args["fact"]))
        if judged.problems and args["strict"]:
            raise AnsibleActionFail(report(judged.problems))
        warnings = [str(problem) for problem in judged.problems]
        warnings += [f"tiers NOT JUDGED: {reason}" for reason in judged.unknown]
        return {"changed": False, "msg": "nothing to refuse", "warnings": warnings}

    def _site(self, facts: Mapping[str, Any], args: Mapping[str, Any]) -> list[Problem]:
        """Return what is wrong with the site as a whole; each host may have tokens of its own."""
        problems = judge_site(args["hosts"], args["routers"])
        drives = {name: host["drives"] for name, host in args["hosts"].items()}
        for host in facts["groups"].get("kvstrata", []):
            problems += judge_tokens(facts["hostvars"][host].get("nvme_wipe_tokens", {}), drives)
        edges = {
            host: facts["hostvars"][host].get("kvstrata_edge") for host in args["routers"] if host in args["hosts"]
        }
        nodes = {host: facts["hostvars"][host] for host in facts["groups"].get("kvstrata", [])}
        problems += judge_profiles(nodes, {host: _wheels(given) for host, given in nodes.items()})
        return problems + judge_edge(edges, args["hosts"], datetime.now(UTC))

    def _variables(self, facts: Mapping[str, Any]) -> list[Problem]:
        """Return the unknown and the mistyped variables of every host of the group kvstrata."""
        known = variables.known_variables(PROJECT)
        ours = variables.prefixes(PROJECT)
        problems = []
        for host in facts["groups"].get("kvstrata", []):
            host_vars = facts["hostvars"][host]
            given = {name: host_vars[name] for name in host_vars if name.startswith(ours)}
            problems += variables.unknown(host, given, known, ours)
            problems += variables.overridden(host, given, variables.mapped(PROJECT))
            mistyped = variables.mistyped(host, given, {**variables.site_specs(PROJECT), **_specs_of(given, known)})
            problems += mistyped
            # A value of the wrong type is said once, and has no range.
            wrong = {problem.variable for problem in mistyped}
            typed = {name: value for name, value in given.items() if name not in wrong}
            problems += [*judge_settings(host, typed), *judge_cache(host, typed), *judge_host_settings(host, typed)]
            problems += [*judge_nvme(host, typed), *judge_edge_settings(host, typed)]
            problems += judge_profile(host, typed)
            problems += judge_client_networks(host, typed.get("kvstrata_client_networks") or [])
        return problems


def _specs_of(given: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the specifications of the role variables that an inventory sets; a role requires none of it."""
    return {name: known[name] for name in given if name in known}


def _wheels(given: Mapping[str, Any]) -> Path | None:
    """Return the list of the wheels that a node installs, or None where no wheelhouse has its name."""
    try:
        lock = read_lock(PROJECT / "artifacts.lock.yml")
        return lock.wheelhouse(given.get("kvstrata_wheelhouse", given.get("kvstrata_accelerator", ""))).lock
    except LockError:
        return None
