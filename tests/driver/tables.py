"""The tables of docs/driver.md. `python -m tests.driver.tables` writes them; a test compares."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from kvstrata.driver import pciids
from kvstrata.driver.decide import decide
from kvstrata.driver.model import Package, Plan
from kvstrata.driver.packages import SYSTEMS
from kvstrata.paths import PROJECT
from tests.driver.probes import probe, wanted

PAGE = PROJECT / "docs" / "driver.md"
NODES = {
    "h100-hgx": ("8 H100 SXM, 4 NVSwitches, Ubuntu 24.04, 570 is loaded", "580.95.05"),
    "a100-hgx": ("8 A100 SXM, 6 NVSwitches, Rocky 9, nouveau", "580.95.05"),
    "b200-hgx": ("8 B200, Ubuntu 24.04", "595.91.07"),
    "gh200": ("GH200, Ubuntu 22.04, arm64", "580.95.05"),
    "l40s": ("4 L40S, Debian 12, nouveau", "580.95.05"),
    "pascal": ("2 P40, Debian 12", "580.95.05"),
    "mixed-served": ("P40 and L40S, Debian 12", "580.95.05"),
    "mixed": ("P40 and RTX PRO 6000 Blackwell", "580.95.05"),
    "no-gpu": ("no GPU", "580.95.05"),
}


def node_rows() -> Iterator[str]:
    """One row for each node of NODES."""
    for name, (text, version) in NODES.items():
        seen = probe(name)
        yield _row(text, version, *_decided(decide(wanted(seen, version), seen)))


def _decided(plan: Plan) -> tuple[str, str, str, str]:
    if plan.refusals:
        return f"refused: `{plan.refusals[0].code}`", "", "", ""
    if plan.flavour is None:
        return "nothing", "", "", ""
    restart = next((action for action in plan.actions if action.startswith("restart")), "no").partition(": ")
    services = ", ".join(f"`{service}`" for service in plan.services)
    return str(plan.flavour), ", ".join(map(_package, plan.packages)), services, restart[2] or "no"


def _package(package: Package) -> str:
    text = f"`{package.name}={package.version}`" if package.version else f"`{package.name}`"
    return f"({text})" if package.optional else text


def architecture_rows() -> Iterator[str]:
    """One row for each generation."""
    for found in vars(pciids).values():
        if isinstance(found, pciids.Architecture) and found is not pciids.TOO_OLD:
            yield _row(found.name, found.modules, found.first_branch, found.last_branch or "")


def system_rows() -> Iterator[str]:
    """One row for each system."""
    for (name, release), system in SYSTEMS.items():
        yield _row(f"{name} {release}", f"`{system.folder}`", system.first_branch)


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |\n"


TABLES: dict[str, Callable[[], Iterator[str]]] = {
    "nodes": node_rows,
    "architectures": architecture_rows,
    "systems": system_rows,
}


def filled(page: str) -> str:
    """The page with its tables as the code would have them."""
    for name, rows in TABLES.items():
        table = re.compile(rf"(<!-- {name} -->\n\|[^\n]*\n\|[^\n]*\n).*?(<!-- end -->)", re.DOTALL)
        page, count = table.subn(lambda match, rows=rows: match[1] + "".join(rows()) + match[2], page)  # type: ignore[misc]
        assert count == 1, name
    return page


if __name__ == "__main__":
    Path(PAGE).write_text(filled(PAGE.read_text()))
