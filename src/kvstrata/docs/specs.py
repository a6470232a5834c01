"""Read the specifications of all variables: the site-wide ones and each role's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


class _Absent:
    """The type of `ABSENT`."""

    def __repr__(self) -> str:
        return "nothing"


ABSENT = _Absent()
"""Stands for "no default at all", which is not the default null."""


@dataclass(frozen=True)
class Option:
    """One variable, or one entry of a dictionary."""

    name: str
    type: str
    description: str
    required: bool
    default: Any
    """The stated default, or ABSENT."""
    choices: tuple[Any, ...]
    elements: str | None
    """Type of a list's elements."""
    options: tuple[Option, ...]
    """Entries of a dictionary, or of each dictionary of a list."""


@dataclass(frozen=True)
class Role:
    """A role as its meta/argument_specs.yml and defaults/main.yml describe it."""

    name: str
    summary: str
    options: tuple[Option, ...]
    defaults: Mapping[str, Any]
    """What defaults/main.yml holds."""


@dataclass(frozen=True)
class Specs:
    """Everything docs/variables.md is made of."""

    site: tuple[Option, ...]
    roles: tuple[Role, ...]
    mapped: frozenset[str]
    """Role variables that playbooks/vars/roles.yml sets, whatever an inventory says."""


def read_specs(project: Path) -> Specs:
    """Read the specifications of the checkout `project`.

    Raises:
        OSError: if a file is missing.
        KeyError: if a specification lacks what every one has (type, description).
    """
    variables = project / "playbooks" / "vars"
    mapping = _load(variables / "roles.yml")
    return Specs(
        site=parse_options(_load(variables / "site_specs.yml")["options"]),
        roles=tuple(_role(path.parent.parent) for path in sorted(project.glob("roles/*/meta/argument_specs.yml"))),
        mapped=frozenset(name for name in mapping if not name.startswith("_")),
    )


def parse_options(entries: Mapping[str, Mapping[str, Any]]) -> tuple[Option, ...]:
    """Return the options of an argument specification, in the order in which they are written."""
    return tuple(_option(name, entry) for name, entry in entries.items())


def _option(name: str, entry: Mapping[str, Any]) -> Option:
    description = entry["description"]
    return Option(
        name=name,
        type=entry["type"],
        description=description if isinstance(description, str) else " ".join(description),
        required=bool(entry.get("required", False)),
        default=entry.get("default", ABSENT),
        choices=tuple(entry.get("choices", ())),
        elements=entry.get("elements"),
        options=parse_options(entry.get("options", {})),
    )


def _role(folder: Path) -> Role:
    spec = _load(folder / "meta" / "argument_specs.yml")["argument_specs"]["main"]
    defaults = folder / "defaults" / "main.yml"
    return Role(
        name=folder.name,
        summary=spec["short_description"],
        options=parse_options(spec.get("options", {})),
        defaults=_load(defaults) if defaults.exists() else {},
    )


def _load(path: Path) -> dict[str, Any]:
    document: dict[str, Any] | None = yaml.safe_load(path.read_text())
    return document or {}
