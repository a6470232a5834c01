"""Render docs/variables.md."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from typing import Any

from kvstrata.docs.specs import ABSENT, Option, Specs

_HEAD = """\
# Variables

<!-- Written by `python -m kvstrata.docs` from playbooks/vars/site_specs.yml and roles/*/meta/argument_specs.yml. -->

An inventory sets the site-wide variables, and those of a role where its defaults do not fit. Preflight refuses a
variable that has one of the prefixes below and is not listed here, and a site-wide one of the wrong type.

*Set by the playbooks* marks what `playbooks/vars/roles.yml` computes from the site-wide variables. Setting it in an
inventory has no effect: set the site-wide variable that its description names.
"""
_COLUMNS = "| Variable | Type | Default | Allowed | Description |\n|---|---|---|---|---|\n"


def render(specs: Specs, guides: Collection[str] = ()) -> str:
    """Return the text of docs/variables.md.

    Args:
        specs: every variable.
        guides: roles that have a page of their own beside it, named ROLE.md.
    """
    parts = [_HEAD, f"\n## Site-wide\n\n{_table(specs.site, frozenset())}"]
    for role in specs.roles:
        guide = f" More in [{role.name}.md]({role.name}.md)." if role.name in guides else ""
        body = _table(role.options, specs.mapped) if role.options else "No variables.\n"
        parts.append(f"\n## Role {role.name}\n\n{role.summary}{guide}\n\n{body}")
    return "".join(parts)


def _table(options: tuple[Option, ...], mapped: Collection[str]) -> str:
    return _COLUMNS + "".join(f"| {' | '.join(row)} |\n" for row in _rows(options, mapped, 0))


def _rows(options: tuple[Option, ...], mapped: Collection[str], depth: int) -> Iterator[tuple[str, ...]]:
    for option in options:
        yield (
            f"{'&emsp;' * depth}`{option.name}`",
            f"{option.type} of {option.elements}" if option.elements else option.type,
            "*set by the playbooks*" if depth == 0 and option.name in mapped else _default(option),
            ", ".join(_value(choice) for choice in option.choices),
            _text(option.description),
        )
        yield from _rows(option.options, mapped, depth + 1)


def _default(option: Option) -> str:
    if option.required:
        return "**required**"
    if option.default is ABSENT:
        return ""
    if isinstance(option.default, dict) and option.default:
        return "<br>".join(f"`{name}:` {_value(value)}" for name, value in option.default.items())
    if isinstance(option.default, list) and option.default:
        return ", ".join(_value(value) for value in option.default)
    return _value(option.default)


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return f"`{text}`".replace("|", "\\|")


def _text(description: str) -> str:
    """Return a description as Markdown: C(code) as Ansible has it, and nothing that would end a table's cell."""
    flat = " ".join(description.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
    return re.sub(r"C\(([^)]*)\)", lambda code: f"`{code[1]}`".replace("\\*", "*"), flat)
