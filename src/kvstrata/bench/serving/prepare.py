"""From what `kvstrata bench serve` was given to a plan and a stack: everything is judged before anything is started."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import yaml

from kvstrata.artifacts import environment as node_environment
from kvstrata.artifacts import wheelhouse
from kvstrata.artifacts.lock import LockError, read_lock
from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving import drivers, local_host, served, sweep
from kvstrata.bench.serving.configurations import Configuration, Sizes, preset, problems, with_engine
from kvstrata.bench.serving.engine_options import POLICIES_WITHOUT_EVENTS, ROUTER_POLICY, ServedModel
from kvstrata.bench.serving.local_stack import LocalSettings
from kvstrata.bench.serving.model import Driver, Json, Pass, Workload
from kvstrata.bench.serving.run import PASSES, Plan
from kvstrata.bench.serving.workloads import build, of_model
from kvstrata.paths import PROJECT, cache_dir

DEFAULT_CONFIGURATIONS = "none,native,dram,dram+ssd,ssd,poc"
KVROCKS, REDIS = "kvrocks", "redis"
# vllm_cpu_kv_gib of roles/vllm.
_CPU_KV_GIB = 1.0


@dataclass(frozen=True)
class Options:
    """What was given on the command line, as it was given; cli.py explains each."""

    configurations: str = DEFAULT_CONFIGURATIONS
    base: str = "dram+ssd"
    sweep: Sequence[str] = ()
    cross: bool = False
    workloads: str = "poc"
    settings: Sequence[str] = ()
    scale: float = 1.0
    driver: str = drivers.DEFAULT
    aiperf: Path | None = None
    vllm: Path | None = None
    rounds: int = 3
    passes: str = "cold,warm"
    seed: int = 1
    minutes: float = 60.0
    phase_minutes: float = 30.0
    questions: int = 8
    page_cache: bool = False
    model: str = served.LAB
    dtype: str | None = None
    kv_dtype: str = "auto"
    load_format: str | None = None
    max_model_len: int = 10000
    tensor_parallel: int = 1
    hbm_gib: float | None = None
    dram_gib: float = 4.0
    staging_gib: float = 1.0
    min_load_gbps: float = 0.0
    engine: Sequence[str] = ()
    environment: Sequence[str] = ()
    python: Path | None = None
    kvrocks: Path | None = None
    server: str = KVROCKS
    accelerator: str = "auto"
    stores: int = 1
    store_gib: float = 8.0
    replicas: int = 1
    router_policy: str = ROUTER_POLICY
    gpus: str = ""
    cpu_threads: int = 2
    start_minutes: float = 15.0
    models: Path = field(default_factory=lambda: cache_dir() / "models")


def configurations(options: Options) -> tuple[Configuration, ...]:
    """Return what is to be compared, the variants of a sweep after their base.

    Raises:
        BenchError: an unknown preset or axis, a value that cannot be meant, or a name twice.
    """
    sizes = Sizes(options.hbm_gib, options.dram_gib, options.staging_gib, options.min_load_gbps)
    names = _words(options.configurations)
    axes = sweep.parse(options.sweep)
    if axes and options.base not in names:
        names.append(options.base)
    engine = _pairs("--engine", options.engine)
    variables = {name: str(value) for name, value in _pairs("--env", options.environment, plain=True).items()}
    found: list[Configuration] = []
    for name in names:
        one = replace(with_engine(preset(name, sizes), engine), environment=variables)
        found += sweep.variants(one, axes, cross=options.cross) if axes and name == options.base else [one]
    twice = sorted({c.name for c in found if [d.name for d in found].count(c.name) > 1})
    if not found or twice:
        raise BenchError(f"--configurations is {options.configurations!r}; allowed: one or more, each once")
    if wrong := [problem for configuration in found for problem in problems(configuration)]:
        raise BenchError("; ".join(wrong))
    return tuple(found)


def plan(options: Options, model: ServedModel, compared: Sequence[Configuration] | None = None) -> Plan:
    """Return the plan; `compared` in place of the configurations that the options name.

    Raises:
        BenchError: something in it is not allowed; nothing was started.
    """
    passes = _words(options.passes)
    if not passes or set(passes) - set(PASSES) or passes != [name for name in PASSES if name in passes]:
        raise BenchError(f"--passes is {options.passes!r}; allowed: {','.join(PASSES)}, or cold alone")
    chosen = _driver(options, model)
    sent = tuple(workloads(options, model))
    for workload in sent:
        if reason := chosen.refuses(workload):
            raise BenchError(f"--driver {chosen.name} cannot send {workload.name}: {reason}")
    return Plan(
        configurations=tuple(compared) if compared else configurations(options),
        workloads=sent,
        driver=chosen,
        rounds=options.rounds,
        passes=cast(tuple[Pass, ...], tuple(passes)),
        seed=options.seed,
        minutes=options.minutes,
        phase_s=options.phase_minutes * 60,
        questions=options.questions,
        dtype=model.dtype,
        from_the_drive=not options.page_cache,
    )


def model(options: Options) -> ServedModel:
    """Return the model, made if it is one of ours; raises BenchError."""
    found = served.prepare(
        options.model,
        options.models,
        dtype=options.dtype,
        kv_dtype=options.kv_dtype,
        load_format=options.load_format,
        most_tokens=options.max_model_len,
    )
    return replace(found, tensor_parallel=options.tensor_parallel)


def local(options: Options, wanted: Sequence[Configuration], folder: Path, logs: Path) -> LocalSettings:
    """Return what a stack on this machine needs; `folder` is the run's own.

    Raises:
        BenchError: a program is missing, or there are fewer GPUs than the replicas take.
    """
    accelerator = local_host.accelerator(options.accelerator)
    served_model = model(options)
    gpus = local_host.gpus() if accelerator == "cuda" else ()
    chosen = _gpus(options.gpus, len(gpus))
    needed = options.replicas * options.tensor_parallel
    if accelerator == "cuda" and needed > len(chosen):
        raise BenchError(
            f"--replicas {options.replicas} of --tensor-parallel {options.tensor_parallel} need {needed} GPUs; "
            f"allowed: no more than there are{' in --gpus' if options.gpus else ''}, {len(chosen)}"
        )
    if options.router_policy not in POLICIES_WITHOUT_EVENTS:
        raise BenchError(f"--router-policy is {options.router_policy!r}; allowed: {', '.join(POLICIES_WITHOUT_EVENTS)}")
    if options.router_policy != ROUTER_POLICY and options.replicas == 1:
        raise BenchError(f"--router-policy {options.router_policy} without --replicas: one engine has no router")
    in_memory = options.replicas * max(c.hbm_gib or _CPU_KV_GIB for c in wanted) if accelerator == "cpu" else 0.0
    local_host.check_memory(max(c.l1_gib for c in wanted), in_memory, local_host.available_bytes())
    return LocalSettings(
        environment=local_host.environment(options.python or _node_python(accelerator), folder / "python"),
        accelerator=accelerator,
        model=served_model,
        folder=folder,
        logs=logs,
        store_binary=_store(options, any(c.stores != "none" for c in wanted)),
        store_is_redis=options.server == REDIS,
        stores=options.stores,
        store_gib=options.store_gib,
        replicas=options.replicas,
        router_policy=options.router_policy,
        gpu_names=tuple(gpus[number] for number in chosen),
        gpus=chosen,
        cpu_threads=options.cpu_threads,
        start_timeout_s=options.start_minutes * 60,
    )


def workloads(options: Options, served_model: ServedModel) -> list[Workload]:
    """Return the workloads that the options name; raises BenchError."""
    vocabulary = of_model(Path(served_model.path))
    given = {name: str(value) for name, value in _pairs("--set", options.settings, plain=True).items()}
    names = _words(options.workloads)
    if not names or len(set(names)) < len(names):
        raise BenchError(f"--workloads is {options.workloads!r}; allowed: one or more, each once")
    return [build(name, vocabulary, options.seed, given=given, scale=options.scale) for name in names]


def _driver(options: Options, served_model: ServedModel) -> Driver:
    beside = options.python.parent / "vllm" if options.python else None
    program = options.vllm or (beside if beside and beside.is_file() else None)
    return drivers.create(options.driver, model=Path(served_model.path), aiperf_path=options.aiperf, vllm_path=program)


def _node_python(accelerator: str) -> Path:
    if accelerator == "cuda":
        raise BenchError("--python is missing: on a machine with GPUs, name a Python that has vllm and lmcache")
    try:
        return node_environment.ensure(read_lock(PROJECT / "artifacts.lock.yml").wheelhouse("cpu"), cache_dir())[0]
    except (LockError, wheelhouse.DownloadError, subprocess.CalledProcessError) as error:
        raise BenchError(f"no environment with vLLM and LMCache: {error}; name one with --python") from error


def _gpus(given: str, there: int) -> tuple[int, ...]:
    """Return the numbers that `--gpus` names, all of them without it.

    Raises:
        BenchError: one that is not there, no number, or one twice.
    """
    words = _words(given) if given else [str(number) for number in range(there)]
    allowed = [str(number) for number in range(there)]
    if not set(words) <= set(allowed) or len(set(words)) < len(words):
        raise BenchError(
            f"--gpus is {given!r}; allowed: each once, of {', '.join(allowed) or 'none, for there is none'}"
        )
    return tuple(int(word) for word in words)


def _store(options: Options, needed: bool) -> Path | None:
    """Return the store's program; None where Kvrocks is not there: what needs it is then NOT RUN."""
    if options.server == REDIS:
        found = shutil.which("redis-server")
        if needed and not found:
            raise BenchError("--server redis: no redis-server on PATH (apt-get install redis-server)")
        return Path(found) if found else None
    if options.server != KVROCKS:
        raise BenchError(f"--server is {options.server!r}; allowed: {KVROCKS}, {REDIS}")
    kvrocks = options.kvrocks or cache_dir() / "bin" / "kvrocks"
    if options.kvrocks is not None and not kvrocks.is_file():
        raise BenchError(f"--kvrocks {kvrocks}: no such file")
    return kvrocks if kvrocks.is_file() else None


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _pairs(option: str, given: Sequence[str], *, plain: bool = False) -> dict[str, Json]:
    """Return NAME=VALUE as a mapping; values are read as YAML unless `plain`."""
    found: dict[str, Json] = {}
    for word in given:
        name, separator, value = word.partition("=")
        if not separator or not name:
            raise BenchError(f"{option} {word!r}; allowed: NAME=VALUE")
        found[name] = value if plain else yaml.safe_load(value)
    return found
