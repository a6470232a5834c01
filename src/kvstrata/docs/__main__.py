"""`python -m kvstrata.docs [--check]`: write what is generated in docs/, or tell whether it is as it should be."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from kvstrata.bench.errors import BenchError
from kvstrata.bench.gpu_page import committed
from kvstrata.docs.defaults import mismatches
from kvstrata.docs.fields import fill
from kvstrata.docs.settings import fill_settings
from kvstrata.docs.specs import Specs, read_specs
from kvstrata.docs.variables import render
from kvstrata.paths import PROJECT

PAGE = Path("docs/variables.md")
L2 = Path("docs/l2.md")
HOST = Path("docs/host.md")


def main(arguments: Sequence[str] | None = None, project: Path = PROJECT) -> int:
    """Return 0 when page and defaults are as the specifications say, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m kvstrata.docs",
        description="Write docs/variables.md, the tables of l2.md and host.md, and docs/gpu.md of results.",
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 with the difference when stale")
    options = parser.parse_args(arguments)
    specs = read_specs(project)
    wrong = list(mismatches(specs.roles))
    for mismatch in wrong:
        print(mismatch, file=sys.stderr)
    texts = {PAGE: render(specs, _guides(project, specs))}
    # A project without the library's page has no tables to fill.
    if (project / L2).exists():
        texts[L2] = fill((project / L2).read_text(), project / "src" / "kvstrata" / "l2" / "config.py")
    if (project / HOST).exists():
        texts[HOST] = fill_settings((project / HOST).read_text(), project)
    try:
        texts |= committed.expected(project)
    except BenchError as error:
        print(f"{committed.PAGE} cannot be made: {error}", file=sys.stderr)
        return 1
    differences = 0
    for name in _leftovers(project, texts):
        if options.check:
            differences += 1
            print(f"{name} has no result in {committed.RESULTS}: run `python -m kvstrata.docs`", file=sys.stderr)
        else:
            (project / name).unlink()
    for name, text in texts.items():
        page = project / name
        if not options.check:
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(text)
        elif difference := stale(page.read_text() if page.exists() else "", text, name):
            differences += 1
            print(difference, end="")
            print(f"{name} is stale: run `python -m kvstrata.docs`", file=sys.stderr)
    return 1 if wrong or differences else 0


def stale(committed: str, rendered: str, name: Path = PAGE) -> str:
    """Return the unified difference that makes `committed` equal to `rendered`; empty when they are equal."""
    lines = (committed.splitlines(keepends=True), rendered.splitlines(keepends=True))
    return "".join(difflib.unified_diff(*lines, fromfile=str(name), tofile="the specifications"))


def _leftovers(project: Path, texts: Mapping[Path, str]) -> list[Path]:
    """Return what is generated of benchmarks' results and has no results any more."""
    there = [project / committed.PAGE] if (project / committed.PAGE).exists() else []
    plots = committed.orphans(project / committed.PAGE, [project / name for name in texts])
    return [path.relative_to(project) for path in (*there, *plots) if path.relative_to(project) not in texts]


def _guides(project: Path, specs: Specs) -> list[str]:
    return [role.name for role in specs.roles if (project / PAGE.parent / f"{role.name}.md").exists()]


if __name__ == "__main__":
    raise SystemExit(main())
