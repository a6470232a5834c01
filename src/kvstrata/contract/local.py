"""Mocked engines on this machine, behind either profile's router."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import httpx

from kvstrata.bench.serving.local_host import Environment
from kvstrata.bench.serving.processes import Child, Processes
from kvstrata.contract import instant, routers
from kvstrata.contract.arms import DYNAMO, ROUTER, Arm
from kvstrata.contract.client import Front
from kvstrata.contract.ports import ports
from kvstrata.contract.residency import Batch, cleared, read_batches
from kvstrata.contract.target import Worker
from kvstrata.contract.waiting import Meter

_HOST = "127.0.0.1"
# Programs of the nodes' environment: this one cannot import what they need.
_WORKERS, _RECORDER = "kvstrata.contract.worker", "kvstrata.contract.recorder"
_INSTANT_DYNAMO = "kvstrata.contract.instant_dynamo"
_START_S = 90.0
_ASK_S = 5.0
_INSTANT = 2


@dataclass(frozen=True)
class Engines:
    """What the mocked engines are like. Sizes in tokens but for `blocks`."""

    model_path: str
    model_name: str = "contract"
    block_size: int = 16
    blocks: int = 2500
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 2048
    max_model_len: int = 16384
    speedup: float = 0.15
    """Against the mocker's model of an engine. So slow that some requests are under way in each worker at the few
    requests a second that two cores can send: a router that sees only idle workers has no load to balance."""


class LocalTarget:
    """See Target. A context manager, which ends all that it started."""

    def __init__(self, environment: Environment, engines: Engines, folder: Path, logs: Path) -> None:
        """Start nothing yet; `folder` is the run's own."""
        # Other benchmarks of this command run where there is none.
        from tokenizers import Tokenizer

        self.engines = engines
        self.block_size = engines.block_size
        self.kv_tokens = engines.blocks * engines.block_size
        self._environment, self._folder = environment, folder
        self._processes = Processes(logs)
        self._workers: dict[str, Worker] = {}
        self._names = (f"w{number}" for number in count())
        # All that ever were: an answer may come late, and discovery forgets slowly.
        self._instances: dict[str, str] = {}
        self._alive: set[str] = set()
        self._configs: dict[str, dict[str, Any]] = {}
        self._children: dict[str, Child] = {}
        self._cleared: list[Batch] = []
        self._place = routers.Place(folder, engines.model_name, engines.block_size)
        self._event_files: list[Path] = []
        self._ports = ports(random.Random())  # noqa: S311 - no secret
        self._read: dict[Path, int] = {}
        self._told: list[Batch] = []
        self._http = httpx.Client(timeout=_ASK_S, trust_env=False)
        self._tokenizer = Tokenizer.from_file(str(Path(engines.model_path) / "tokenizer.json"))

    def __enter__(self) -> LocalTarget:
        """Start what watches over the processes."""
        self._processes.__enter__()
        return self

    def __exit__(self, *details: object) -> None:
        """End everything."""
        try:
            self._processes.__exit__(*details)
        finally:
            self._http.close()

    @property
    def workers(self) -> Sequence[Worker]:
        """See Target."""
        return tuple(self._workers.values())

    def port(self) -> int:
        """Return a port of loopback that nobody listens on, another one each time."""
        return next(self._ports)

    def start(self, groups: Sequence[int], speedup: float | None = None) -> None:
        """Start workers, so many in each process: one process for those that are killed on their own.

        One process after the other, for each knows its engines by what is new in discovery.
        """
        for size in groups:
            self._start_group([next(self._names) for _ in range(size)], speedup)
        self._record(list(self._workers))

    def route(self, arm: Arm) -> AbstractContextManager[Front]:
        """See Target."""
        return self._route(arm, self.port())

    @contextmanager
    def _route(self, arm: Arm, port: int) -> Iterator[Front]:
        metrics_port = self.port()
        child = self.start_router(arm, port, metrics_port=metrics_port)
        front = self.front(arm, port)
        try:
            yield replace(front, metrics=f"http://{_HOST}:{metrics_port}/metrics") if arm.profile == ROUTER else front
        finally:
            self._processes.end_one(child)

    def start_router(
        self,
        arm: Arm,
        port: int,
        workers: Sequence[Worker] | None = None,
        discovery: Path | None = None,
        metrics_port: int | None = None,
    ) -> Child:
        """Start an arm's router, of other workers or in another discovery than the target's; return once it serves."""
        known = self.workers if workers is None else workers
        argv = routers.command(arm, self._environment.python, port, metrics_port or self.port(), known, self._place)
        child = self._processes.start(f"router:{arm.name}", argv, self._variables(discovery), f"router-{arm.name}.log")
        url = f"http://{_HOST}:{port}"
        child.await_health(lambda: self._serves(url), _START_S)
        return child

    def front(self, arm: Arm, port: int) -> Front:
        """Return how requests reach an arm's router."""
        url = f"http://{_HOST}:{port}"
        if arm.profile == DYNAMO:
            more = {"nvext": {"extra_fields": ["worker_id"]}}
            return Front(url, self.engines.model_name, self._worker_of_dynamo, more, session=arm.session)
        return Front(url, self.engines.model_name, lambda said: said.get("worker"), session=arm.session)

    def direct(self, name: str) -> Front:
        """Return one worker's own front."""
        return Front(self._workers[name].url, self.engines.model_name, lambda said: said.get("worker"))

    @contextmanager
    def instant(self, arm: Arm) -> Iterator[tuple[Front, Front, Child]]:
        """Have an arm's router serve engines that answer at once; yield its front, theirs, and the router's process.

        Dynamo's worker is reached through its runtime alone: what that takes is charged to the frontend.
        """
        model, port, discovery = self.engines.model_name, self.port(), self._folder / "instant"
        servers, children = [], []
        for number in range(_INSTANT):
            found = Worker(f"instant{number}", f"http://{_HOST}:{self.port()}", f"tcp://{_HOST}:{self.port()}")
            servers.append(found)
            argv = [sys.executable, "-m", instant.__name__, str(_port(found.url)), model, found.name]
            children.append(self._processes.start(found.name, argv, self._variables(), f"{found.name}.log"))
        direct = Front(servers[0].url, model, lambda said: said.get("worker"))
        try:
            for found, child in zip(servers, children, strict=True):
                child.await_health(partial(self._answers, f"{found.url}/health"), _START_S)
            if arm.profile == DYNAMO:
                argv = [str(self._environment.python), "-m", _INSTANT_DYNAMO, self.engines.model_path, model]
                variables = self._variables(discovery)
                argv.append(str(self.engines.block_size))
                children.append(self._processes.start("instant:dynamo", argv, variables, "instant-dynamo.log"))
            children.append(self.start_router(arm, port, servers, discovery))
            yield self.front(arm, port), direct, children[-1]
        finally:
            for child in reversed(children):
                self._processes.end_one(child)
            shutil.rmtree(discovery, ignore_errors=True)

    def refuses(self, arm: Arm) -> str | None:
        """See Target."""
        package = "ai-dynamo" if arm.profile == DYNAMO else "vllm-router"
        return None if package in self._environment.versions else f"{self._environment.python} has no {package}"

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """See Target."""
        return [found.ids for found in self._tokenizer.encode_batch(list(texts))]

    def events(self) -> list[Batch] | None:
        """See Target."""
        for file in self._event_files:
            found, self._read[file] = read_batches(file, self._read.get(file, 0))
            self._told += found
        return sorted([*self._told, *self._cleared], key=lambda batch: batch.at)

    def meter(self) -> Meter:
        """See Target."""
        return Meter(self._processes.running.values())

    def kill(self, name: str) -> None:
        """Kill a worker's process at once (SIGKILL), with all workers in it."""
        child = self._children[name]
        os.killpg(child.pid, signal.SIGKILL)
        self._processes.end_one(child)
        gone = [other for other, its in self._children.items() if its is child]
        self._alive -= {instance for instance, its in self._instances.items() if its in gone}
        self._cleared += [cleared(time.monotonic(), other) for other in gone]

    def revive(self, name: str) -> None:
        """Start a killed worker's process again: the same addresses, an empty cache."""
        self._start_process(name)

    def join(self) -> Worker:
        """Start another worker; return it. Its events are recorded from the start."""
        name = next(self._names)
        self._start_group([name], None)
        self._record([name])
        return self._workers[name]

    def leave(self, name: str) -> None:
        """End a worker that has a process of its own, in order: it is none of the workers any more."""
        self._processes.end_one(self._children.pop(name))
        self._alive -= {instance for instance, its in self._instances.items() if its == name}
        del self._workers[name], self._configs[name]

    def end_router(self, child: Child) -> None:
        """End a router in order (SIGTERM)."""
        self._processes.end_one(child)

    def describe(self) -> Mapping[str, Any]:
        """See Target."""
        return {
            "kind": "mocker",
            "workers": len(self._workers),
            "engines": asdict(self.engines) | {"model_path": Path(self.engines.model_path).name},
            "versions": dict(self._environment.versions),
        }

    def _start_group(self, names: Sequence[str], speedup: float | None) -> None:
        places = []
        for name in names:
            found = Worker(name, f"http://{_HOST}:{self.port()}", f"tcp://{_HOST}:{self.port()}")
            self._workers[name] = found
            places.append(
                {
                    "name": name,
                    "port": _port(found.url),
                    "events_port": _port(found.events),
                    "engine_events_port": self.port(),
                }
            )
        given = asdict(self.engines) | {"workers": places}
        if speedup is not None:
            given["speedup"] = speedup
        for name in names:
            self._configs[name] = given
        self._start_process(names[0])

    def _start_process(self, first: str) -> None:
        config = self._configs[first]
        names = [name for name, its in self._configs.items() if its is config]
        file = self._folder / f"workers-{first}.json"
        file.write_text(json.dumps(config | {"alive": sorted(self._alive), "known": sorted(self._instances)}))
        argv = [str(self._environment.python), "-m", _WORKERS, str(file)]
        child = self._processes.start(f"workers:{first}", argv, self._variables(), f"workers-{first}.log")
        last = self._workers[names[-1]]
        child.await_health(lambda: self._answers(f"{last.url}/health"), _START_S)
        for name in names:
            self._children[name] = child
            said = self._http.get(f"{self._workers[name].url}/kvstrata/worker").json()
            self._instances[said["instance"]] = name
            self._alive.add(said["instance"])

    def _record(self, names: Sequence[str]) -> None:
        """Have workers' events written down, before anything is asked of them."""
        file = self._folder / f"events-{names[0]}.jsonl"
        sources = [f"{name}={self._workers[name].events}" for name in names]
        argv = [str(self._environment.python), "-m", _RECORDER, str(file), *sources]
        child = self._processes.start(f"recorder:{names[0]}", argv, self._variables(), f"recorder-{names[0]}.log")
        child.await_health(file.is_file, _START_S)
        self._event_files.append(file)

    def _serves(self, url: str) -> bool:
        """Return whether a router has workers to route to."""
        try:
            answer = self._http.get(f"{url}/v1/models")
            return answer.is_success and any(model["id"] == self.engines.model_name for model in answer.json()["data"])
        except (httpx.HTTPError, ValueError, KeyError):
            return False

    def _answers(self, url: str) -> bool:
        try:
            return self._http.get(url).is_success
        except httpx.HTTPError:
            return False

    def _worker_of_dynamo(self, said: Mapping[str, Any]) -> str | None:
        told = (said.get("nvext") or {}).get("worker_id") or {}
        return self._instances.get(str(told.get("decode_worker_id")))

    def _variables(self, discovery: Path | None = None) -> dict[str, str]:
        return self._environment.variables() | {
            "DYN_FILE_KV": str(discovery or self._folder / "discovery"),
            "DYN_LOG": "warn",
            "PYTHONUNBUFFERED": "1",
        }


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])
