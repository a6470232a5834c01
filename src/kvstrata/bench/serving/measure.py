"""From a plan to a record: the place is made, the journal kept, and everything given back, whatever ends the run."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from kvstrata.bench import host, procfs
from kvstrata.bench.ending import own_folder
from kvstrata.bench.errors import BenchError
from kvstrata.bench.quiet import QuietWait
from kvstrata.bench.serving import prepare, served
from kvstrata.bench.serving.configurations import Configuration
from kvstrata.bench.serving.engine_options import ServedModel
from kvstrata.bench.serving.local_stack import LocalStack
from kvstrata.bench.serving.model import Json
from kvstrata.bench.serving.prepare import Options
from kvstrata.bench.serving.record import Journal, Record, read_journal
from kvstrata.bench.serving.run import Plan, Progress, Runner
from kvstrata.bench.serving.stack import Stack
from kvstrata.bench.sizes import GIB
from kvstrata.cluster import Cluster

_FEW_ROUNDS = 3
_SEEDS = 1 << 31


@dataclass(frozen=True)
class Keeping:
    """Where the run lies, and what becomes of it."""

    journal: Path
    logs: Path
    resume: bool
    finished: Callable[[Record], None]
    """Called with the record at the end, also of a run that is ended from outside."""


@dataclass(frozen=True)
class _Place:
    stack: Stack
    host: dict[str, Json]
    quiet: Callable[[], None]


def on_this_machine(
    options: Options,
    keeping: Keeping,
    say: Progress,
    *,
    folder: Path | None = None,
    allow_memory: bool = False,
    wait_minutes: float = 0.0,
) -> None:
    """Measure on this machine, with the stores' data in a folder of their own below `folder`.

    Raises:
        BenchError: something is not allowed or missing; nothing was started.
    """
    plan = prepare.plan(options, prepare.model(options))
    place = folder or host.default_folder()
    # A store also holds what was evicted and is not compacted away yet.
    host.check_folder(place, int(options.stores * options.store_gib * GIB) // 4, allow_memory)
    with own_folder(place, "kvstrata-bench-serve-") as own:
        described = host.describe(procfs.mount_of(own))
        quiet = QuietWait(described["cores"], wait_minutes * 60)
        settings = prepare.local(options, plan.configurations, own, keeping.logs)
        with LocalStack(settings) as stack:
            _run(plan, _Place(stack, described, quiet), keeping, say)


def on_site(
    options: Options, cluster: Cluster, node: str | None, keeping: Keeping, say: Progress, *, seed: int | None
) -> None:
    """Measure a site as it is deployed, or configurations on one node of it.

    Args:
        options: what was given.
        cluster: the site.
        node: where configurations are tried; None: the site as it is deployed, through its router.
        keeping: where the run lies.
        say: told of progress.
        seed: of the prompts; None: another one each time, for a deployed site remembers earlier prompts.

    Raises:
        BenchError: something is not allowed or missing; nothing was changed.
    """
    # Here and not above: a bare host with GPUs has no paramiko, and needs none of this.
    from kvstrata.bench.serving.deployed_stack import NAME as DEPLOYED
    from kvstrata.bench.serving.deployed_stack import DeployedStack
    from kvstrata.bench.serving.site_stack import SiteStack

    options = replace(options, seed=secrets.randbelow(_SEEDS) if seed is None and node is None else options.seed)
    with _files_of_model(cluster, options) as folder:
        model = ServedModel(
            cluster.model.name, str(folder), cluster.model.dtype, max_model_len=cluster.model.max_model_len
        )
        if node is None:
            plan = prepare.plan(options, model, [Configuration(DEPLOYED)])
            rounds = tuple(
                tuple(prepare.workloads(replace(options, seed=options.seed + turn), model))
                for turn in range(options.rounds)
            )
            plan = replace(plan, workloads=rounds[0], by_round=rounds, questions=0)
            stack: AbstractContextManager[Stack] = DeployedStack(cluster)
        else:
            plan = prepare.plan(options, model)
            names = [n.name for n in cluster.nodes if n.engines]
            if node not in names:
                raise BenchError(f"--node is {node!r}; allowed: {', '.join(names)}")
            stack = SiteStack(cluster, cluster.node(node), options.start_minutes * 60)
        with stack as running:
            controller: dict[str, Json] = {"controller_cores": len(os.sched_getaffinity(0)), "cores": 0}
            _run(plan, _Place(running, controller, lambda: None), keeping, say)


def _run(plan: Plan, place: _Place, keeping: Keeping, say: Progress) -> None:
    asked = plan.to_json() | {"stack": dict(place.stack.describe())}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    record = read_journal(keeping.journal, asked) if keeping.resume else Record(now, asked)
    record.host, record.stack = place.host, dict(place.stack.describe())
    if "load_before" in place.host:
        for note in host.warnings(place.host):
            record.note(note)
    if plan.rounds < _FEW_ROUNDS:
        record.note(f"--rounds {plan.rounds}: fewer than three, the medians mean little")
    journal = Journal(keeping.journal)
    journal.begin(record)
    cores = place.host["cores"]
    try:
        Runner(plan, place.stack, record, journal, say, place.quiet, cores if isinstance(cores, int) else 0).run()
    finally:
        keeping.finished(record)


@contextmanager
def _files_of_model(cluster: Cluster, options: Options) -> Iterator[Path]:
    """Yield a folder with the tokenizer and config.json of a site's model: --model's if given, else the node's own."""
    if options.model != Options().model:
        yield Path(prepare.model(options).path)
        return
    nodes = [node for node in cluster.nodes if node.engines]
    if not nodes:
        raise BenchError(f"site {cluster.site} has no engine")
    from kvstrata.bench.serving.site_reach import SiteReach

    reach = SiteReach(cluster, nodes[:1])
    try:
        with tempfile.TemporaryDirectory(prefix="kvstrata-bench-model-") as folder:
            for name in ("config.json", "tokenizer.json"):
                text = reach.read(nodes[0].name, f"{cluster.model.path}/{name}")
                if text is not None:
                    (Path(folder) / name).write_text(text)
            served.read_config(Path(folder), f"{nodes[0].name}: {cluster.model.path}")
            yield Path(folder)
    finally:
        reach.close()
