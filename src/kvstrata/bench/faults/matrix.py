"""Run cases, each in a process of its own, and turn what became of it into rows."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kvstrata.bench.faults import isolate
from kvstrata.bench.faults.cases import Case
from kvstrata.bench.faults.isolate import NotPossibleError
from kvstrata.bench.faults.probe import HungError
from kvstrata.bench.faults.rig import Rig
from kvstrata.bench.faults.rows import FAILED, NOT_APPLICABLE, NOT_CHECKED, Row
from kvstrata.bench.faults.servers import find_binary

_LOG_LINES = 6


@dataclass(frozen=True)
class Plan:
    """What is run, and where."""

    adapter: str
    engine: str
    kvrocks: Path
    folder: Path
    seed: int


def run(plan: Plan, cases: Sequence[Case]) -> Iterator[Row]:
    """Run the cases one after another."""
    isolate.prepare()
    for case in cases:
        yield _run(plan, case)


def _run(plan: Plan, case: Case) -> Row:
    if case.ours_only and plan.adapter != "kvstrata":
        return Row(case.name, case.what, plan.adapter, plan.engine, NOT_APPLICABLE, notes=(case.ours_only,))
    began = time.monotonic()
    folder = plan.folder / case.name
    folder.mkdir()
    log = folder / "case.log"
    try:
        outcome = isolate.forked(lambda: _case(plan, case, folder), case.limit_s, log)
    finally:
        isolate.await_orphans()
    if isinstance(outcome.value, Row):
        return outcome.value
    tail = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()][-_LOG_LINES:]
    killed = "killed" in outcome.failure
    return Row(
        case.name,
        case.what,
        plan.adapter,
        plan.engine,
        FAILED,
        hung=killed,
        crashed=not killed,
        broken=(outcome.failure, *tail),
        seconds=round(time.monotonic() - began, 1),
    )


def _case(plan: Plan, case: Case, folder: Path) -> Row:
    began = time.monotonic()
    try:
        binary = find_binary(plan.engine, plan.kvrocks)
        rig = Rig(plan.adapter, plan.engine, binary, folder, plan.seed, quick=not case.default_deadlines)
        try:
            case.run(rig)
        except HungError as error:
            rig.seen.hung = rig.seen.hung or str(error)
        row = rig.seen.row(case.name, case.what, plan.adapter, plan.engine, time.monotonic() - began)
        # An adapter that hangs may not be closable either: its process is ended without asking it.
        if not row.hung:
            rig.close()
    except NotPossibleError as error:
        return Row(case.name, case.what, plan.adapter, plan.engine, NOT_CHECKED, notes=(str(error),))
    return row
