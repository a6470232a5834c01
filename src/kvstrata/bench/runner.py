"""Run a study: rounds over all setups, raw drive first, within a time that was promised."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from kvstrata.bench import host, rawdisk
from kvstrata.bench.ending import end_if_told, own_folder
from kvstrata.bench.errors import BenchError
from kvstrata.bench.measure import Budget, measure
from kvstrata.bench.quiet import QuietWait
from kvstrata.bench.results import SCHEMA, Failure, Run
from kvstrata.bench.server import version
from kvstrata.bench.study import Setup, dram_baseline

# Starts, stops and synchronisation of one setup; measured on two cores.
_OVERHEAD_S = 4.0
_WORKLOADS = 4
_LEAST_S = 0.5
# Most setups need far less than the most that they may take.
_GENEROSITY = 2.5

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What to run, on which binaries, where, and for how long."""

    setups: Sequence[Setup]
    binaries: Mapping[str, Path]
    folder: Path
    allow_memory: bool
    value_bytes: int
    seconds: float
    minutes: float
    wait_minutes: float
    repeats: int
    seed: int


def seconds_each(plan: Plan, setups: int) -> float:
    """Return the seconds that one workload may take for the rounds to fit into `minutes`, unless most need them all.

    That the run ends in time is not left to this: no setup begins after `minutes`.

    Raises:
        BenchError: the time is too short to measure anything.
    """
    share = plan.minutes * 60 / (plan.repeats * (setups + 1))
    allowed = (share - _OVERHEAD_S) / _WORKLOADS
    if allowed < _LEAST_S:
        needed = (_OVERHEAD_S + _WORKLOADS * _LEAST_S) * plan.repeats * (setups + 1) / 60
        raise BenchError(
            f"{setups} setups, {plan.repeats} times, do not fit into --minutes {plan.minutes:g}; at least {needed:.0f} "
            "are needed, or fewer --axes"
        )
    return min(plan.seconds, allowed * _GENEROSITY)


def run(plan: Plan, progress: Progress) -> Run:
    """Measure everything in rounds, each over all setups in another order, so that drift meets them alike.

    Raises:
        BenchError: nothing can be measured here; a setup that fails later is recorded and does not end the run.
    """
    mount = host.check_folder(plan.folder, plan.value_bytes, plan.allow_memory)
    described = host.describe(mount)
    setups = list(plan.setups)
    notes = list(host.warnings(described))
    if all(setup.server != "redis" for setup in setups):
        if "redis" in plan.binaries:
            setups.append(dram_baseline(setups[0]))
        else:
            notes.append("NO REDIS-SERVER on this machine: the DRAM baseline is MISSING; apt-get install redis-server")
    else:
        notes.append("NO KVROCKS in this run: redis-server stands in, nothing is said about an SSD tier")
    budget = Budget(plan.value_bytes, seconds_each(plan, len(setups)))
    result = Run(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=plan.seed,
        repeats=plan.repeats,
        budget={"bytes": plan.value_bytes, "seconds": budget.seconds, "minutes": plan.minutes},
        host=described,
        versions={name: version(binary) for name, binary in plan.binaries.items()} | {"schema": SCHEMA},
        setups=setups,
        notes=notes,
    )
    began = time.monotonic()
    try:
        _rounds(plan, mount.device, budget, result, progress)
    except (KeyboardInterrupt, SystemExit):
        # Servers and folder are gone by now; what was measured is worth its report.
        result.notes.append("CUT SHORT by a signal: repeats are missing")
    if note := host.foreign_note([sample.foreign_cores for sample in result.samples], described["cores"]):
        result.notes.append(note)
    result.duration_s = time.monotonic() - began
    return result


def _rounds(plan: Plan, device: str, budget: Budget, result: Run, progress: Progress) -> None:
    quiet = QuietWait(result.host["cores"], plan.wait_minutes * 60)
    began = time.monotonic()
    with own_folder(plan.folder, "kvstrata-bench-") as folder:
        for step in _steps(plan, result.setups, folder, device, budget, result, progress):
            quiet()
            end_if_told()
            if time.monotonic() - began - quiet.waited_s > plan.minutes * 60:
                result.notes.append(f"CUT SHORT after {plan.minutes:g} minutes, before {step}: repeats are missing")
                return
    result.complete = not result.failures


def _steps(
    plan: Plan, setups: Sequence[Setup], folder: Path, device: str, budget: Budget, result: Run, progress: Progress
) -> Iterator[str]:
    """Yield the name of each step before it is done."""
    for repeat in range(1, plan.repeats + 1):
        yield f"the raw drive, round {repeat}"
        result.raw.append(rawdisk.measure(folder, plan.value_bytes, budget.seconds, repeat))
        raw = result.raw[-1]
        progress(f"round {repeat}: raw drive: write {raw.write_mb_s:.0f}, read {raw.read_mb_s:.0f} MB/s")
        for setup in random.Random(plan.seed + repeat).sample(setups, len(setups)):  # noqa: S311
            yield f"{setup.name}, round {repeat}"
            progress(f"round {repeat}: {setup.name}: {_one(plan, setup, folder, device, budget, repeat, result)}")


def _one(plan: Plan, setup: Setup, folder: Path, device: str, budget: Budget, repeat: int, result: Run) -> str:
    place = folder / "setup"
    place.mkdir()
    try:
        samples = measure(setup, plan.binaries[setup.server], place, device, budget, repeat, plan.seed)
    except BenchError as error:
        result.failures.append(Failure(setup.name, repeat, str(error)))
        return f"FAILED: {error}"
    finally:
        shutil.rmtree(place)
    result.samples.extend(samples)
    return ", ".join(f"{sample.workload} {sample.mb_s:.0f}" for sample in samples) + " MB/s"
