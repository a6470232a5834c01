"""What `kvstrata bench routing -i INVENTORY` does: the contract on a site as it is deployed."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kvstrata.bench import host, procfs
from kvstrata.bench.errors import BenchError
from kvstrata.cluster import Cluster, DescribeError, InvalidClusterError
from kvstrata.contract import judge, record
from kvstrata.contract.arms import Arm
from kvstrata.contract.load import Load
from kvstrata.contract.run import Plan, Run, Say
from kvstrata.contract.site import SiteTarget
from kvstrata.contract.site_disruption import Disrupter, disrupt
from kvstrata.contract.site_load import TIMEOUT_S, Sources, loads, pace, salt, scale_of, shape_for
from kvstrata.contract.workload import Conversations
from kvstrata.drain.errors import NotDoneError, RefusedError
from kvstrata.drain.site import connected
from kvstrata.verify.check import UnableError, UnmetError
from kvstrata.verify.cli import BadOptionError, cluster_of

SECONDS, ROUNDS = 150.0, 1
# No load lasts as long as that: it is ended when the last event has been looked at.
_EVER_S = 7200.0
OVERHEAD = (
    "NOT JUDGED: overhead, for a site's engines compute: what they take differs from one request to the next by far "
    "more than 2 ms, and they bear no 500 requests a second. The mocked engines tell it"
)
UNDISTURBED = "NOT RUN: disruption, which disturbs a site and must be asked for (--disrupt)"


@dataclass(frozen=True)
class Options:
    """What the command was given; see kvstrata.contract.cli."""

    inventory: Path | None
    cluster_file: Path | None
    through: str | None
    rounds: int
    seconds: float
    per_s: float | None
    loads: bool
    disrupt: bool
    after_s: float
    seed: int
    arms: str | None


def run_site(options: Options, place: Path, say: Say) -> dict[str, Any]:
    """Run the contract; return what is written down.

    Args:
        options: of the command.
        place: a folder of the run's own.
        say: gets a line of progress.

    Raises:
        BenchError: it could not run.
    """
    try:
        cluster = cluster_of(options.inventory, options.cluster_file)
        return _run(cluster, options, place, say)
    except (DescribeError, InvalidClusterError, BadOptionError, UnableError, UnmetError) as error:
        raise BenchError(str(error)) from error


def _run(cluster: Cluster, options: Options, place: Path, say: Say) -> dict[str, Any]:
    began, created = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    described = host.describe(procfs.mount_of(place))
    run, sources = Run(notes=[note for note in host.warnings(described) if "BUSY" in note]), list[Sources]()
    with connected(cluster, say) as site, SiteTarget(site, place, options.through) as target:
        if options.disrupt and target.recorded is None:
            raise BenchError("--disrupt needs engines that tell KV events (kv_aware, Dynamo), to see locality return")
        arms = chosen(target, options.arms)
        about = dict(target.describe())
        per_s, cold_s = pace(target, options.seed)
        per_s = options.per_s or per_s
        say(f"a cold prompt takes {cold_s:.2f} s; {per_s:.2f} requests a second, through the {target.through}")
        plan = Plan(
            arms=arms,
            rounds=options.rounds,
            seconds=options.seconds,
            per_s=round(per_s, 3),
            disruption_s=options.after_s if options.disrupt else 0.0,
            seed=options.seed,
            routers=len(target.hosts),
        )
        try:
            if options.loads:
                loads(target, plan, run, sources, say)
            if options.disrupt:
                _disrupt(target, plan, run, say)
        except (KeyboardInterrupt, SystemExit):
            # What was measured is worth its report; what was started ends below.
            run.notes.append(record.CUT_SHORT)
    run.notes += [OVERHEAD] + ([] if options.disrupt else [UNDISTURBED])
    if target.one_machine:
        run.notes.append("all nodes are on one machine and share its cores")
    header = {
        "created": created,
        "duration_s": round(time.monotonic() - began, 1),
        "host": described,
        "target": about | {"cold_prompt_s": round(cold_s, 3), "one_machine": target.one_machine},
        "sources": [asdict(one) for one in sources],
    }
    return record.to_json(run, plan, header)


def chosen(target: SiteTarget, names: str | None) -> tuple[Arm, ...]:
    """Return the deployed way to route, and those named that it is compared with; without names all.

    Raises:
        BenchError: a name of none.
    """
    compared = {arm.name: arm for arm in target.compared()}
    words = list(compared) if names is None else [word.strip() for word in names.split(",") if word.strip()]
    if unknown := sorted(set(words) - compared.keys()):
        raise BenchError(f"--arms names {', '.join(unknown)}; allowed on this site: {', '.join(compared)}")
    return (target.deployed, *(compared[word] for word in words))


def _disrupt(target: SiteTarget, plan: Plan, run: Run, say: Say) -> None:
    arm, disrupter = target.deployed, Disrupter(target)
    shape, slots = shape_for(target, plan.per_s, 0.0)
    talk = Conversations(shape, plan.seed, salt(f"{arm.name} disrupted"), scale_of(target))
    load = Load(shape, slots, _EVER_S, timeout_s=TIMEOUT_S)
    try:
        try:
            found, wrong = asyncio.run(disrupt(target, disrupter, load, talk, plan.seed, plan.disruption_s, say))
        finally:
            disrupter.restore()
    except (BenchError, UnableError, UnmetError, NotDoneError, RefusedError) as error:
        run.failures.append({"arm": arm.name, "what": judge.DISRUPTION, "error": str(error)})
        say(f"{arm.name}: disruption FAILED: {error}")
        return
    run.failures += [{"arm": arm.name, "what": judge.DISRUPTION, "error": error} for error in wrong]
    run.disruptions[arm.name] = found
    for one in found:
        say(
            f"{arm.name}: {one.what}: {one.requests} requests, {one.failed} failed ({one.cut} cut), {one.retried} "
            f"retried, locality back: {one.back_s}; {'; '.join(one.errors)}"
        )
