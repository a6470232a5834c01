"""The command `kvstrata bench routing`."""

from __future__ import annotations

import json
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from kvstrata.artifacts import environment as node_environment
from kvstrata.artifacts import wheelhouse
from kvstrata.artifacts.lock import LockError, read_lock
from kvstrata.bench import host, procfs, terminal
from kvstrata.bench.ending import end_by_exception, own_folder
from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving import local_host, served
from kvstrata.contract import arms as all_arms
from kvstrata.contract import measure, record, report
from kvstrata.contract.local import Engines, LocalTarget
from kvstrata.contract.run import Plan, Run, disruptions, loads
from kvstrata.paths import PROJECT, cache_dir

_WIDTH = 200
POINTS = ("loads", "disruption", "overhead", "throughput")
# Of each mocked engine, however many there are: so many requests a second that some are under way in it at a time, and
# so small a cache, though several times what is under way, that four times more conversations than fit come round more
# than twice in the seconds of a load.
_PER_S, _BLOCKS, _SECONDS, _SPEEDUP = 7.5, 700, 14.0, 1.2
# A program with many engines finds the tokens of a prompt once for all of them.
_TOGETHER = 32
_MODEL_TOKENS = 16384


def routing(
    inventory: Annotated[
        Path | None, typer.Option("--inventory", "-i", help="Test the deployed site of this inventory instead.")
    ] = None,
    cluster_file: Annotated[
        Path | None, typer.Option("--cluster", help="What playbooks/describe.yml wrote, instead of an inventory.")
    ] = None,
    through: Annotated[
        str | None, typer.Option(help="On a site: edge or router. Default: the edge where there is one.")
    ] = None,
    disrupt: Annotated[
        bool,
        typer.Option("--disrupt", help="On a site, point 4: kill a worker, restart a router, drain a worker and back."),
    ] = False,
    after_seconds: Annotated[float, typer.Option(min=10, help="Of load after each event on a site.")] = 60.0,
    workers: Annotated[int, typer.Option(min=1, help="Mocked engines.")] = 2,
    arms: Annotated[
        str | None, typer.Option(help=f"Of {', '.join(all_arms.ARMS)}. Default: all but power_of_two.")
    ] = None,
    variant: Annotated[
        list[str] | None, typer.Option(help="Also NAME=ARM with other flags, or parameters of Dynamo's policy.")
    ] = None,
    points: Annotated[str, typer.Option(help="Of loads (1, 2, 3, 6), disruption (4), overhead (5), throughput.")] = (
        "loads,disruption,overhead"
    ),
    rounds: Annotated[int | None, typer.Option(min=1, help="Over all arms. Default: 3, on a site 1.")] = None,
    seconds: Annotated[float | None, typer.Option(min=2.0, help="Of each load. Default: 14, on a site 150.")] = None,
    per_second: Annotated[
        float | None, typer.Option(help="Requests a second, about. Default: 7.5 for each worker, or what a site bears.")
    ] = None,
    disruption_seconds: Annotated[
        float, typer.Option(help="Of the load under which things end and come back.")
    ] = 140.0,
    disruption_rounds: Annotated[int, typer.Option(min=1, help="Of the disrupted load, for each arm.")] = 3,
    routers: Annotated[
        int, typer.Option(min=1, max=2, help="That are disrupted: 2 stand in for each other, as behind the edge.")
    ] = 2,
    overhead_rate: Annotated[float, typer.Option(help="Requests a second of point 5.")] = 500.0,
    router_cores: Annotated[
        str | None, typer.Option(help="CPUs that point 5 gives the router alone, such as 0,1. Default: no such limit.")
    ] = None,
    blocks: Annotated[int, typer.Option(min=100, help="KV blocks of each engine.")] = _BLOCKS,
    speedup: Annotated[float, typer.Option(help="Of the engines, against the mocker's model of one.")] = _SPEEDUP,
    slow_down: Annotated[
        float,
        typer.Option(
            min=1.0, help="All takes so many times longer: engines, think times, loads. For machines of few cores."
        ),
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Of texts, sizes and think times.")] = 1,
    python: Annotated[
        Path | None, typer.Option(help="Has ai-dynamo and vllm-router. Default: `kvstrata artifacts environment cpu`.")
    ] = None,
    model: Annotated[str, typer.Option(help="A folder with a tokenizer, or one of ours.")] = "tiny-llama",
    folder: Annotated[
        Path | None, typer.Option("--dir", help="For files of the run. Default: a temporary one.")
    ] = None,
    reports: Annotated[
        list[Path] | None, typer.Option("--report", help="Run nothing: print the Markdown of these files.")
    ] = None,
    into: Annotated[
        Path | None, typer.Option(help="With --report: put it between the marks of this page, such as docs/routing.md.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Write NAME.json, NAME.md and NAME-logs/: this NAME.")] = Path(
        "bench-routing"
    ),
) -> None:
    """Test the contract of both profiles' routers. Exit 0: met, 1: a claimed point is not, 2: it could not run."""
    console, log = terminal.console(_WIDTH), terminal.console(_WIDTH, stderr=True)
    end_by_exception()
    try:
        if reports:
            runs = [record.read(file) for file in reports]
            text = report.markdown(runs)
            if into is None:
                print(text, end="")
            else:
                into.write_text(report.into(into.read_text(), text, sites=report.of_sites(runs)))
            return
        if inventory is not None or cluster_file is not None:
            # Here and not above: the other benchmarks run on hosts that have none of what the verifier needs.
            from kvstrata.contract import site_run

            options = site_run.Options(
                inventory=inventory,
                cluster_file=cluster_file,
                through=through,
                rounds=rounds or site_run.ROUNDS,
                seconds=seconds or site_run.SECONDS,
                per_s=per_second,
                loads="loads" in points,
                disrupt=disrupt,
                after_s=after_seconds,
                seed=seed,
                arms=arms,
            )
            with own_folder(folder or host.default_folder(), "kvstrata-routing-") as place:
                found = site_run.run_site(options, place, lambda text: _say(log, text))
            _written(found, output, console)
            return
        chosen = [word.strip() for word in points.split(",") if word.strip()]
        if unknown := sorted(set(chosen) - set(POINTS)) or not chosen:
            raise BenchError(f"--points is {points!r} ({unknown}); allowed: {', '.join(POINTS)}")
        if slow_down > 1 and set(chosen) != {"loads"}:
            raise BenchError(f"--slow-down is {slow_down:g} with --points {points!r}; allowed: with loads alone")
        plan = Plan(
            tuple(arm.slowed(slow_down) for arm in all_arms.chosen(arms, variant or ())),
            rounds or 3,
            seconds or _SECONDS,
            per_second or _PER_S * workers,
            disruption_seconds,
            seed,
            routers,
            disruption_rounds,
            slow_down,
        )
        served_model = served.prepare(
            model, cache_dir() / "models", dtype=None, load_format=None, most_tokens=_MODEL_TOKENS
        )
        environment, _ = local_host.any_environment(python or _node_python())
        engines = Engines(served_model.path, blocks=blocks, speedup=speedup / slow_down)
        cores = tuple(int(word) for word in router_cores.split(",")) if router_cores else ()
        with own_folder(folder or host.default_folder(), "kvstrata-routing-") as place:
            found = _run(
                plan, chosen, workers, engines, environment, place, output, measure.Rate(overhead_rate, cores), log
            )
    except BenchError as error:
        log.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None
    _written(found, output, console)


def _say(log: Console, text: str) -> None:
    log.print(f"[dim]{datetime.now(UTC):%H:%M:%S}[/] {escape(text)}", highlight=False, soft_wrap=True)


def _written(found: dict[str, Any], output: Path, console: Console) -> None:
    """Write and show a run; typer.Exit where it is not good."""
    output.with_name(output.name + ".json").write_text(json.dumps(found, indent=1) + "\n")
    output.with_name(output.name + ".md").write_text(report.markdown([found]))
    report.show(found, console)
    if found["failures"] or record.CUT_SHORT in found["notes"] or not record.passed(found["verdicts"]):
        raise typer.Exit(1)


def _run(
    plan: Plan,
    points: list[str],
    workers: int,
    engines: Engines,
    environment: local_host.Environment,
    place: Path,
    output: Path,
    rate: measure.Rate,
    log: Console,
) -> dict[str, Any]:
    began, created = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    described = host.describe(procfs.mount_of(place))
    # Loads measure themselves whether others were in their way.
    run = Run(notes=[note for note in host.warnings(described) if "BUSY" in note and set(points) != {"loads"}])

    def say(text: str) -> None:
        _say(log, text)

    logs = output.with_name(output.name + "-logs")
    with LocalTarget(environment, engines, place, logs) as target:
        for arm in plan.arms:
            if reason := target.refuses(arm):
                raise BenchError(f"arm {arm.name}: {reason}")
        # The one that is killed has a process of its own.
        target.start(_groups(workers))
        about = target.describe()
        say(f"{workers} workers answer after {time.monotonic() - began:.0f} s")
        try:
            if "loads" in points:
                loads(target, plan, run, say)
            if "overhead" in points:
                measure.overheads(target, plan, run, rate, say)
            if "throughput" in points:
                measure.throughput(environment, engines, place, logs, plan, run, say)
            if "disruption" in points and plan.disruption_s:
                disruptions(target, plan, run, say)
        except (KeyboardInterrupt, SystemExit):
            # What was measured is worth its report; the processes end below.
            run.notes.append(record.CUT_SHORT)
    header = {
        "created": created,
        "duration_s": round(time.monotonic() - began, 1),
        "host": described,
        "target": {**about, "workers": workers},
    }
    return record.to_json(run, plan, header)


def _groups(workers: int) -> list[int]:
    """Return how many workers each process has: the one that is killed is alone, the others share some."""
    rest = workers - 1
    return [1] + [min(_TOGETHER, rest - begin) for begin in range(0, rest, _TOGETHER)]


def _node_python() -> Path:
    try:
        return node_environment.ensure(read_lock(PROJECT / "artifacts.lock.yml").wheelhouse("cpu"), cache_dir())[0]
    except (LockError, wheelhouse.DownloadError, subprocess.CalledProcessError) as error:
        raise BenchError(f"no environment with Dynamo and vllm-router: {error}; name one with --python") from error
