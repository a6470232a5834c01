#!/usr/bin/env python3
"""Run everything that CI runs, or the steps named on the command line, and print the time of each.

Steps: lint, unit, roles (a molecule scenario for each role), lab (the whole system, end to end); and, only when named,
baremetal (drives and reboots in emulated machines).

Most of the time a step awaits something, so two go on at a time: the scenarios of the roles beside linters and unit
tests, and two scenarios, each in a lab of its own, once those have ended. What all need is made before, and what wants
the machine for itself comes after. The output of what runs beside is shown when it has ended. The last lines are the
ends of what failed, for they are often all that is kept of a run.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from threading import Lock

from kvstrata.paths import PROJECT, cache_dir

# Scenarios that are groups of their own; the others are the roles'.
BARE_METAL, END_TO_END = "baremetal", "lab"
# The labs of scenarios that go on at the same time, and how molecule is told which one to use.
LABS, LAB_VARIABLE = ("molecule", "molecule-b"), "KVSTRATA_MOLECULE_LAB"
TWO_HUNDRED_NODES = "tests/verify/simulated/test_simulated_site.py"
# A good part of the tests awaits something too. A file stays with one process: what its tests share is made once.
TWO_AT_A_TIME = ("--numprocesses=2", "--dist=loadfile")
# The output of a step that nothing runs beside is shown so often.
SHOWN_EVERY_S = 0.5
# Of a step that failed, about so many lines are told again at the end, each so long.
FAILURES, LONG = 12, 600
TASK = "TASK ["
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# Molecule's own words after a failure of a playbook, in columns. Which one that was stands before them.
AFTERWORD = re.compile(r"^ERROR {2,}")
NAMES_A_FAILURE = re.compile(r"^(FAILED|ERROR)\b|fatal: \[|\[ERROR\]|\berror:|: FAILED\b|\bFAIL\b")
# Left out unless named: emulated on two cores, it takes a quarter of an hour. `make test-baremetal` names it.
ONLY_WHEN_NAMED = (BARE_METAL,)
# Outputs in one piece stay in one piece.
showing = Lock()


class When(StrEnum):
    """When a step runs: before all others, in their row, beside that row and after it, or after both."""

    FIRST = "first"
    ROW = "row"
    BESIDE = "beside"
    ALONE = "alone"


@dataclass(frozen=True)
class Step:
    """One command of a group."""

    group: str
    name: str
    command: tuple[str, ...]
    when: When = When.ROW


@dataclass(frozen=True)
class Outcome:
    """What became of a step."""

    step: Step
    passed: bool
    seconds: float
    failures: tuple[str, ...] = ()
    """The lines of its output that name a failure; where there are none, its last lines."""


def steps() -> Iterator[Step]:
    """Return every step, the quickest of a row first."""
    # Steps beside each other would install packages, or download wheels into one folder, at the same time.
    yield Step("unit", "host packages", ("kvstrata", "lab", "packages"), When.FIRST)
    for group in ("unit", "roles"):
        yield Step(group, "wheels of a node", ("kvstrata", "artifacts", "release", "cpu"), When.FIRST)
    yield Step("roles", "model of a node", ("kvstrata", "lab", "model"), When.FIRST)
    yield Step("unit", "environment with LMCache", ("kvstrata", "artifacts", "environment", "cpu"), When.FIRST)
    yield Step("lint", "ruff check", ("ruff", "check", "."))
    yield Step("lint", "ruff format", ("ruff", "format", "--check", "."))
    yield Step("lint", "mypy", ("mypy",))
    yield Step("lint", "yamllint", ("yamllint", "--strict", "."))
    yield Step("lint", "ansible-lint", ("ansible-lint",))
    yield Step("lint", "docs are up to date", ("python", "-m", "kvstrata.docs", "--check"))
    yield Step("unit", "pytest", ("pytest", "-q", *TWO_AT_A_TIME, f"--ignore={TWO_HUNDRED_NODES}"))
    yield Step("unit", "pytest faults", ("pytest", "-q", *TWO_AT_A_TIME, "tests/faults"))
    yield Step("unit", "pytest routing", ("pytest", "-q", *TWO_AT_A_TIME, "tests/routing", "tests/drain/live"))
    yield Step("unit", "pytest two hundred nodes", ("pytest", "-q", TWO_HUNDRED_NODES), When.ALONE)
    for scenario in scenarios():
        command = ("molecule", "test", "--scenario-name", scenario)
        if scenario == BARE_METAL:
            yield Step(scenario, f"molecule {scenario}", command, When.ALONE)
        elif scenario == END_TO_END:
            # Engines that compute and a proof with deadlines: on two cores it takes twice as long beside others.
            yield Step(scenario, f"molecule {scenario}", command, When.ALONE)
        else:
            yield Step("roles", f"molecule {scenario}", command, When.BESIDE)


def scenarios() -> list[str]:
    """Return the molecule scenarios, the end-to-end one last."""
    names = sorted(path.parent.name for path in PROJECT.glob("molecule/*/molecule.yml"))
    return [name for name in names if name != END_TO_END] + [name for name in names if name == END_TO_END]


def failures_of(lines: Sequence[str]) -> tuple[str, ...]:
    """Return the last failure that lines name, with its task and what follows; where none is named, the last lines.

    Without colours, and cut to a readable length.
    """
    plain = [COLOUR.sub("", line).rstrip() for line in lines if line.strip()]
    afterwords = {number for number, line in enumerate(plain) if AFTERWORD.search(line)}
    named = {number for number, line in enumerate(plain) if NAMES_A_FAILURE.search(line)}
    named = named - afterwords or named
    if named:
        first = max(named)
        while first - 1 in named:
            first -= 1
        task = [line for line in plain[:first] if TASK in line][-1:]
        told = task + plain[first : first + FAILURES]
    else:
        told = plain[-FAILURES:]
    return tuple(line if len(line) <= LONG else f"{line[:LONG]} ..." for line in told)


def run(step: Step, beside: bool = False, variables: Mapping[str, str] | None = None) -> Outcome:
    """Run a step, with more variables in its environment.

    The output of one that runs beside others comes when it has ended, in one piece.
    """
    environment = {**os.environ, **(variables or {})}
    print(f"\n=== {step.name}: {'begins beside' if beside else ' '.join(step.command)}", flush=True)
    started = time.monotonic()
    # A file and no pipe: what a step leaves running would hold a pipe open.
    with tempfile.NamedTemporaryFile() as output, Path(output.name).open(errors="replace") as shown:
        text = ""
        with subprocess.Popen(step.command, cwd=PROJECT, env=environment, stdout=output, stderr=output) as process:
            while process.returncode is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(SHOWN_EVERY_S)
                more = shown.read()
                text += more
                if not beside:
                    print(more, end="", flush=True)
    seconds = time.monotonic() - started
    if beside:
        with showing:
            print(f"\n=== {step.name}: {' '.join(step.command)}\n{text}=== {step.name}: {seconds:.0f} s", flush=True)
    passed = process.returncode == 0
    return Outcome(step, passed, seconds, () if passed else failures_of(text.splitlines()))


def run_beside(waiting: deque[Step], lab: str) -> Iterator[Outcome]:
    """Run what waits, one after the other in the lab, until nothing does: another lab takes from there too."""
    while True:
        try:
            step = waiting.popleft()
        except IndexError:
            return
        yield run(step, beside=True, variables={LAB_VARIABLE: lab})


def run_all(wanted: Sequence[Step]) -> list[Outcome]:
    """Run the steps, each when it may."""
    outcomes = [run(step) for step in wanted if step.when is When.FIRST]
    waiting = deque(step for step in wanted if step.when is When.BESIDE)
    with ThreadPoolExecutor(1) as beside:
        others = beside.submit(lambda: list(run_beside(waiting, LABS[0])))
        try:
            outcomes += [run(step) for step in wanted if step.when is When.ROW]
            scenarios_of_roles = [*run_beside(waiting, LABS[1]), *others.result()]
        finally:
            # After an interrupt nothing else is begun.
            waiting.clear()
    outcomes += sorted(scenarios_of_roles, key=lambda outcome: wanted.index(outcome.step))
    return outcomes + [run(step) for step in wanted if step.when is When.ALONE]


def say_which_store(binary: Path) -> None:
    """Say what the stores of this run are: with redis-server in their place, no SSD tier was tested."""
    if binary.is_file():
        print(f"store: Kvrocks, {binary}")
    else:
        print(f"store: NO KVROCKS at {binary}: redis-server stands in, and the SSD tier is NOT tested in this run")


def main(groups: Sequence[str]) -> int:
    """Run the steps of the named groups, or all; return 1 if one failed, 2 if a group is unknown."""
    # A shell that starts this in the background has everything below it ignore interrupts, which tests send.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    everything = list(steps())
    known = sorted({step.group for step in everything})
    if unknown := set(groups) - set(known):
        print(f"unknown: {', '.join(sorted(unknown))}; allowed: {', '.join(known)}", file=sys.stderr)
        return 2
    binary = cache_dir() / "bin" / "kvrocks"
    say_which_store(binary)
    wanted = groups or [group for group in known if group not in ONLY_WHEN_NAMED]
    started = time.monotonic()
    # What several groups need is done once.
    outcomes = run_all(list({step.command: step for step in everything if step.group in wanted}.values()))
    print("\n=== time of each step")
    for outcome in outcomes:
        verdict = "ok" if outcome.passed else "FAILED"
        print(f"{outcome.seconds:8.1f} s  {verdict:6}  {outcome.step.name}")
    print(f"{time.monotonic() - started:8.1f} s  together, some beside others")
    say_which_store(binary)
    for group in ONLY_WHEN_NAMED if not groups else ():
        print(f"NOT RUN: {group}, which is real NVMe, refusals and reboots: `make test-{group}` (QEMU, 15 minutes)")
    failed = sum(not outcome.passed for outcome in outcomes)
    print(f"\nsteps: {len(outcomes) - failed} passed, {failed} failed")
    for outcome in outcomes:
        for line in outcome.failures:
            print(f"{outcome.step.name}: {line}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
