"""Tables of what the role host sets, from roles/host/vars/main/settings.yml: value, reason and source of each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

DATA = Path("roles/host/vars/main/settings.yml")
_TABLE = re.compile(r"(<!-- settings: (kernel|role) -->\n).*?(<!-- end -->\n)", re.DOTALL)


def fill_settings(page: str, project: Path) -> str:
    """Return the page with its two tables anew: the kernel's settings, and the defaults of the role's variables.

    Raises:
        KeyError: if a setting lacks its reason or its source, or the role has no variable of a name.
    """
    data = yaml.safe_load((project / DATA).read_text())
    defaults = yaml.safe_load((project / "roles/host/defaults/main.yml").read_text())
    tables = {
        "kernel": _rows(
            data["_host_recommended"], {name: _bounded(entry) for name, entry in data["_host_recommended"].items()}
        ),
        "role": _rows(data["_host_reasons"], {name: _shown(defaults[name]) for name in data["_host_reasons"]}),
    }

    def table(match: re.Match[str]) -> str:
        head = ["| Setting | Value | Why | Source |", "|---|---|---|---|"]
        return match[1] + "\n".join([*head, *tables[match[2]]]) + "\n" + match[3]

    return _TABLE.sub(table, page)


def _rows(entries: Mapping[str, Mapping[str, Any]], values: Mapping[str, str]) -> Iterator[str]:
    for name, entry in entries.items():
        host = entry["source"].split("/")[2].removeprefix("www.")
        yield f"| `{name}` | {values[name]} | {' '.join(entry['why'].split())} | [{host}]({entry['source']}) |"


def _bounded(entry: Mapping[str, Any]) -> str:
    share = entry.get("most_of_memory")
    return f"{entry['value']}, or {share * 100:g} % of the memory where that is less" if share else str(entry["value"])


def _shown(value: Any) -> str:
    if value in ("", [], None):
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
