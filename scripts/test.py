#!/usr/bin/env python3
"""Run everything that CI runs, or the steps named on the command line, and print the time of each.

Steps: lint, unit, roles (a molecule scenario for each role), lab (the whole system, end to end); and, only when named,
baremetal (drives and reboots in emulated machines).
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kvstrata.paths import PROJECT, cache_dir

# Scenarios that are groups of their own; the others are the roles'.
BARE_METAL, END_TO_END = "baremetal", "lab"
TWO_HUNDRED_NODES = "tests/verify/simulated/test_simulated_site.py"
# Left out unless named: emulated on two cores, it takes a quarter of an hour. `make test-baremetal` names it.
ONLY_WHEN_NAMED = (BARE_METAL,)


@dataclass(frozen=True)
class Step:
    """One command of a group."""

    group: str
    name: str
    command: tuple[str, ...]


def steps() -> Iterator[Step]:
    """Return every step, the quickest first."""
    yield Step("lint", "ruff check", ("ruff", "check", "."))
    yield Step("lint", "ruff format", ("ruff", "format", "--check", "."))
    yield Step("lint", "mypy", ("mypy",))
    yield Step("lint", "yamllint", ("yamllint", "--strict", "."))
    yield Step("lint", "ansible-lint", ("ansible-lint",))
    yield Step("lint", "docs are up to date", ("python", "-m", "kvstrata.docs", "--check"))
    yield Step("unit", "host packages", ("kvstrata", "lab", "packages"))
    # A good part of them awaits something, so that several at a time take half the time on two cores. A file stays with
    # one of them: what its tests share is made once. Two hundred nodes in one process want the machine for themselves.
    yield Step(
        "unit", "pytest", ("pytest", "-q", "--numprocesses=3", "--dist=loadfile", f"--ignore={TWO_HUNDRED_NODES}")
    )
    yield Step("unit", "pytest two hundred nodes", ("pytest", "-q", TWO_HUNDRED_NODES))
    yield Step("unit", "environment with LMCache", ("kvstrata", "artifacts", "environment", "cpu"))
    yield Step("unit", "pytest faults", ("pytest", "-q", "tests/faults"))
    yield Step("unit", "pytest routing", ("pytest", "-q", "tests/routing", "tests/drain/live"))
    for scenario in scenarios():
        group = scenario if scenario in (BARE_METAL, END_TO_END) else "roles"
        yield Step(group, f"molecule {scenario}", ("molecule", "test", "--scenario-name", scenario))


def scenarios() -> list[str]:
    """Return the molecule scenarios, the end-to-end one last."""
    names = sorted(path.parent.name for path in PROJECT.glob("molecule/*/molecule.yml"))
    return [name for name in names if name != END_TO_END] + [name for name in names if name == END_TO_END]


def run(step: Step) -> tuple[bool, float]:
    """Run a step; return whether it passed and the seconds it took."""
    print(f"\n=== {step.name}: {' '.join(step.command)}", flush=True)
    started = time.monotonic()
    passed = subprocess.run(step.command, cwd=PROJECT, check=False).returncode == 0
    return passed, time.monotonic() - started


def say_which_store(binary: Path) -> None:
    """Say what the stores of this run are: with redis-server in their place, no SSD tier was tested."""
    if binary.is_file():
        print(f"store: Kvrocks, {binary}")
    else:
        print(f"store: NO KVROCKS at {binary}: redis-server stands in, and the SSD tier is NOT tested in this run")


def main(groups: Sequence[str]) -> int:
    """Run the steps of the named groups, or all; return 1 if one failed, 2 if a group is unknown."""
    everything = list(steps())
    known = sorted({step.group for step in everything})
    if unknown := set(groups) - set(known):
        print(f"unknown: {', '.join(sorted(unknown))}; allowed: {', '.join(known)}", file=sys.stderr)
        return 2
    binary = cache_dir() / "bin" / "kvrocks"
    say_which_store(binary)
    wanted = groups or [group for group in known if group not in ONLY_WHEN_NAMED]
    results = [(step, *run(step)) for step in everything if step.group in wanted]
    print("\n=== time of each step")
    for step, passed, seconds in results:
        print(f"{seconds:8.1f} s  {'ok    ' if passed else 'FAILED'}  {step.name}")
    print(f"{sum(seconds for _, _, seconds in results):8.1f} s  together")
    say_which_store(binary)
    for group in ONLY_WHEN_NAMED if not groups else ():
        print(f"NOT RUN: {group}, which is real NVMe, refusals and reboots: `make test-{group}` (QEMU, 15 minutes)")
    failed = sum(not passed for _, passed, _ in results)
    print(f"\nsteps: {len(results) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
