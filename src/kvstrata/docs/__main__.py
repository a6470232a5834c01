"""`python -m kvstrata.docs [--check]`: write docs/variables.md, or tell whether it is as it should be."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path

from kvstrata.docs.defaults import mismatches
from kvstrata.docs.specs import Specs, read_specs
from kvstrata.docs.variables import render
from kvstrata.paths import PROJECT

PAGE = Path("docs/variables.md")


def main(arguments: Sequence[str] | None = None, project: Path = PROJECT) -> int:
    """Return 0 when page and defaults are as the specifications say, else 1."""
    parser = argparse.ArgumentParser(prog="python -m kvstrata.docs", description="Write docs/variables.md.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 with the difference when stale")
    options = parser.parse_args(arguments)
    specs = read_specs(project)
    wrong = list(mismatches(specs.roles))
    for mismatch in wrong:
        print(mismatch, file=sys.stderr)
    page, text = project / PAGE, render(specs, _guides(project, specs))
    if not options.check:
        page.parent.mkdir(exist_ok=True)
        page.write_text(text)
        return 1 if wrong else 0
    difference = stale(page.read_text() if page.exists() else "", text)
    if difference:
        print(difference, end="")
        print(f"{PAGE} is stale: run `python -m kvstrata.docs`", file=sys.stderr)
    return 1 if wrong or difference else 0


def stale(committed: str, rendered: str) -> str:
    """Return the unified difference that makes `committed` equal to `rendered`; empty when they are equal."""
    lines = (committed.splitlines(keepends=True), rendered.splitlines(keepends=True))
    return "".join(difflib.unified_diff(*lines, fromfile=str(PAGE), tofile="the specifications"))


def _guides(project: Path, specs: Specs) -> list[str]:
    return [role.name for role in specs.roles if (project / PAGE.parent / f"{role.name}.md").exists()]


if __name__ == "__main__":
    raise SystemExit(main())
