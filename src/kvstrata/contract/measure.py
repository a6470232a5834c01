"""Points of the contract that need engines of their own: overhead against an instant one, one worker against two."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from kvstrata.bench.ending import end_if_told
from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving.local_host import Environment
from kvstrata.contract import overhead
from kvstrata.contract.arms import Arm
from kvstrata.contract.local import Engines, LocalTarget
from kvstrata.contract.run import Plan, Run, Say
from kvstrata.contract.throughput import compare
from kvstrata.contract.workload import Conversations, Shape, sample_texts, tokens_per_word

_SECONDS = 16.0
_CLIENTS = 24
_THROUGHPUT_S = 30.0


@dataclass(frozen=True)
class Rate:
    """How point 5 is measured: requests a second, and the CPUs that the router has for itself."""

    per_s: float
    cores: tuple[int, ...] = ()


def overheads(target: LocalTarget, plan: Plan, run: Run, rate: Rate, say: Say) -> None:
    """Point 5, for the arms that the contract is claimed for; several rounds, the arms in turns."""
    claimed = [arm for arm in plan.arms if arm.judged]
    others = sorted(os.sched_getaffinity(0) - set(rate.cores))
    if rate.cores:
        run.notes.append(
            f"point 5: the router on CPUs {_list(rate.cores)}, client and engines on {_list(others or rate.cores)}"
        )
    for turn in range(1, plan.rounds + 1):
        for arm in claimed:
            end_if_told()
            try:
                found = _overhead(target, arm, rate)
            except BenchError as error:
                run.failures.append({"arm": arm.name, "what": "overhead", "error": str(error)})
                say(f"round {turn}: {arm.name}: overhead: FAILED: {error}")
                continue
            run.overheads.setdefault(arm.name, []).append(found)
            say(
                f"round {turn}: {arm.name}: P99 {found.routed_p99_ms:.2f} ms routed, {found.direct_p99_ms:.2f} direct, "
                f"P50 adds {found.added_p50_ms:.2f} ms, {found.reached_per_s:.0f}/s, {found.failed} failed, "
                f"router {found.router_cores:.2f} cores, client {found.client_cores:.2f}"
            )


def _overhead(target: LocalTarget, arm: Arm, rate: Rate) -> overhead.Overhead:
    with _left_alone(rate.cores), target.instant(arm) as (routed, direct, router):
        if rate.cores:
            _pin(router.pid, rate.cores)
        return asyncio.run(overhead.measure(routed, direct, rate.per_s, _SECONDS, router.cpu_s))


@contextmanager
def _left_alone(cores: Sequence[int]) -> Iterator[None]:
    """Have this program, and the engines that it starts, leave CPUs to the router, where there are others."""
    before = os.sched_getaffinity(0)
    if others := before - set(cores):
        os.sched_setaffinity(0, others)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def throughput(
    environment: Environment, engines: Engines, folder: Path, logs: Path, plan: Plan, run: Run, say: Say
) -> None:
    """Two workers against one, for the arms that the contract is claimed for."""
    # Its think times are not kept: every client asks as soon as it is answered.
    shape = Shape()
    for count in (1, 2):
        place = folder / f"throughput-{count}"
        place.mkdir()
        with LocalTarget(environment, replace(engines, speedup=engines.speedup / 4), place, logs) as target:
            target.start([1] * count)
            scale = tokens_per_word([len(ids) for ids in target.tokens(sample_texts())])
            for arm in (arm for arm in plan.arms if arm.judged):
                end_if_told()
                talk = Conversations(shape, plan.seed, f"{arm.name} {count} saturated", scale)
                found = compare(target, arm, talk, shape, _CLIENTS, _THROUGHPUT_S)
                run.saturations.append(found)
                say(f"{arm.name}: {count} workers: {found.per_s:.1f} answers/s, {found.failed} failed")


def _list(cores: Sequence[int]) -> str:
    return ", ".join(map(str, cores))


def _pin(pid: int, cores: Sequence[int]) -> None:
    """Have a process, with all its threads, run on those CPUs alone."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), cores)
