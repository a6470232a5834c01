"""Unknown and mistyped variables: every name that starts like one of ours must be one of ours."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from kvstrata.preflight.problem import Problem


def known_variables(project: Path) -> dict[str, Any]:
    """Return every documented variable and its specification: the roles' and the site-wide ones.

    Args:
        project: the checkout, with roles/*/meta/argument_specs.yml.
    """
    specs: dict[str, Any] = {}
    for path in sorted(project.glob("roles/*/meta/argument_specs.yml")):
        specs.update(yaml.safe_load(path.read_text())["argument_specs"]["main"].get("options", {}))
    specs.update(site_specs(project))
    return specs


def site_specs(project: Path) -> dict[str, Any]:
    """Return the specifications of the site-wide variables kvstrata_*."""
    path = project / "playbooks" / "vars" / "site_specs.yml"
    options: dict[str, Any] = yaml.safe_load(path.read_text())["options"]
    return options


def prefixes(project: Path) -> tuple[str, ...]:
    """Return the prefixes that belong to us: one for each role, and kvstrata_."""
    roles = sorted(path.parent.parent.name for path in project.glob("roles/*/meta/argument_specs.yml"))
    return (*(f"{role}_" for role in roles), "kvstrata_")


def unknown(where: str, names: Mapping[str, Any], known: Mapping[str, Any], ours: tuple[str, ...]) -> list[Problem]:
    """Return a problem for each variable of `names` that looks like ours and is not known."""
    problems = []
    for name in names:
        if name in known or not name.startswith(ours):
            continue
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
        allowed = f"did you mean {close[0]}?" if close else "only the variables of docs/variables.md"
        problems.append(Problem(where, f"unknown variable {name}", names[name], allowed))
    return problems


def mapped(project: Path) -> frozenset[str]:
    """Return the role variables that playbooks/vars/roles.yml sets; it outranks every inventory."""
    names: dict[str, Any] = yaml.safe_load((project / "playbooks" / "vars" / "roles.yml").read_text())
    return frozenset(name for name in names if not name.startswith("_"))


def overridden(where: str, given: Mapping[str, Any], names: frozenset[str]) -> list[Problem]:
    """Return a problem for each variable that an inventory sets in vain, because the playbooks set it too."""
    allowed = "nothing here, the playbooks set it: set the kvstrata_ variable that docs/variables.md names for it"
    return [Problem(where, name, given[name], allowed) for name in given if name in names]


def mistyped(where: str, given: Mapping[str, Any], specs: Mapping[str, Any]) -> list[Problem]:
    """Return a problem for each variable that is missing or has a value that its specification refuses."""
    problems = []
    for name, spec in specs.items():
        value = {name: given[name]} if name in given else {}
        messages = ArgumentSpecValidator({name: _validated(spec)}).validate(value).error_messages
        problems += [
            Problem(where, name, given.get(name), f"{spec['type']}: {_first_line(spec['description'])} ({message})")
            for message in messages
        ]
        if name in given and not messages:
            problems += _out_of_range(where, name, given[name], spec)
    return problems


def _out_of_range(where: str, name: str, value: Any, spec: Mapping[str, Any]) -> list[Problem]:
    """Check `range: [lowest, highest]`, which the specifications of site-wide variables add to Ansible's keys."""
    if "range" in spec:
        lowest, highest = spec["range"]
        if not lowest <= float(value) <= highest:
            return [Problem(where, name, value, f"{lowest} to {highest}: {_first_line(spec['description'])}")]
    entries = value if isinstance(value, list) else [value]
    return [
        problem
        for entry in entries
        for option, inner in spec.get("options", {}).items()
        if isinstance(entry, Mapping) and option in entry
        for problem in _out_of_range(where, f"{name}[].{option}", entry[option], inner)
    ]


def _validated(spec: Mapping[str, Any]) -> dict[str, Any]:
    # Ansible's validator refuses keys that only documentation needs.
    kept = {key: value for key, value in spec.items() if key not in ("description", "version_added", "range")}
    if "options" in kept:
        kept["options"] = {name: _validated(option) for name, option in kept["options"].items()}
    return kept


def _first_line(description: str | list[str]) -> str:
    return description if isinstance(description, str) else description[0]
