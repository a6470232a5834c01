"""A replica is drained, restarted and put back behind a real vllm-router, and no request fails meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from kvstrata.artifacts import environment, wheelhouse
from kvstrata.artifacts.lock import LockError, read_lock
from kvstrata.bench.server import free_port
from kvstrata.cluster import parse
from kvstrata.drain.leave import Leaving, drain
from kvstrata.drain.rejoin import undrain
from kvstrata.drain.replicas import chosen
from kvstrata.drain.site import Site
from kvstrata.models import lab_llama
from kvstrata.paths import PROJECT, cache_dir
from kvstrata.verify import wait
from tests.verify.fakes import documents
from tests.verify.fakes.shell import FakeShell

_BLOCK = 16
_MODEL = "drained"
_CLIENTS = 6
_TOKENS = 24
_START_S = 90.0
# Long enough for a stream to be under way in each worker, at any moment.
_SPEEDUP = 0.3


@pytest.fixture(scope="module")
def node_python() -> Path:
    """The interpreter with vllm-router and Dynamo's mocker; without it nothing here can be tested."""
    try:
        return environment.ensure(read_lock(PROJECT / "artifacts.lock.yml").wheelhouse("cpu"), cache_dir())[0]
    except (LockError, wheelhouse.DownloadError, subprocess.CalledProcessError) as error:
        pytest.fail(f"no environment with vllm-router (kvstrata artifacts environment cpu): {error}")


class Stack:
    """Two mocked engines, each a process of its own, behind one vllm-router; on loopback."""

    def __init__(self, python: Path, folder: Path, policy: str) -> None:
        self._python, self._folder, self.policy = python, folder, policy
        models = folder / "models"
        lab_llama.ensure(models, shape=lab_llama.Shape(hidden=64, layers=1, heads=1, kv_heads=1, intermediate=64))
        self._model_path = next(models.iterdir())
        self.ports = {name: free_port() for name in ("node1", "node2")}
        self._events = {name: (free_port(), free_port()) for name in self.ports}
        self.router_port = free_port()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Stack:
        for name in self.ports:
            self.start(name)
        for name in self.ports:
            self.await_healthy(self.ports[name])
        self.start_router()
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._processes):
            self.stop(name)

    @property
    def clients(self) -> Clients:
        """New ones, of its router."""
        return Clients(f"http://127.0.0.1:{self.router_port}")

    def start_router(self) -> None:
        urls = {name: f"http://127.0.0.1:{port}" for name, port in self.ports.items()}
        words = [str(self._python.parent / "vllm-router"), "--host", "127.0.0.1", "--port", str(self.router_port)]
        words += ["--policy", self.policy, "--prometheus-port", str(free_port()), "--log-level", "warning"]
        words += ["--health-check-interval-secs", "2", "--health-failure-threshold", "3"]
        if self.policy == "kv_aware":
            words += ["--kv-event-block-size", str(_BLOCK), "--kv-event-model", _MODEL]
            for name, url in urls.items():
                words += ["--kv-event-source", f"{url}=tcp://127.0.0.1:{self._events[name][0]}"]
        self._run("router", [*words, "--worker-urls", *urls.values()])
        self.await_healthy(self.router_port)

    def start(self, name: str) -> None:
        events, engine_events = self._events[name]
        place = {"name": name, "port": self.ports[name], "events_port": events, "engine_events_port": engine_events}
        config: dict[str, Any] = {
            "model_path": str(self._model_path),
            "model_name": _MODEL,
            "block_size": _BLOCK,
            "blocks": 1000,
            "max_num_seqs": 32,
            "max_num_batched_tokens": 2048,
            "max_model_len": 4096,
            "speedup": _SPEEDUP,
            "workers": [place],
        }
        file = self._folder / f"{name}.json"
        file.write_text(json.dumps(config))
        self._run(name, [str(self._python), str(Path(__file__).with_name("counting_worker.py")), str(file)])

    def stop(self, name: str) -> None:
        process = self._processes.pop(name)
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)

    def runs(self, name: str) -> bool:
        return name in self._processes

    def await_healthy(self, port: int) -> None:
        def healthy() -> bool | None:
            ended = [name for name, process in self._processes.items() if process.poll() is not None]
            assert not ended, f"{', '.join(ended)} ended: see {self._folder}/*.log"
            try:
                return httpx.get(f"http://127.0.0.1:{port}/health", timeout=2, trust_env=False).is_success or None
            except httpx.HTTPError:
                return None

        assert wait.until(healthy, _START_S, 0.2), f"nothing healthy at {port}: see {self._folder}/*.log"

    def _run(self, name: str, words: Sequence[str]) -> None:
        # A discovery of its own at each start: that of before still knows the engine that was stopped.
        environ = {
            **os.environ,
            "PYTHONPATH": str(PROJECT / "src"),
            "DYN_FILE_KV": tempfile.mkdtemp(prefix=f"kv-{name}-", dir=self._folder),
        }
        # What one engine needs of threads; by default the runtime takes as many as a server would.
        environ |= {"DYN_RUNTIME_NUM_WORKER_THREADS": "2", "DYN_LOG": "error"}
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(words, stdout=log, stderr=log, env=environ)


@dataclass
class Clients:
    """Streams without a pause, each client's next one as soon as its last one ended."""

    url: str
    done: int = 0
    failed: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def asking(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._client, args=(number,)) for number in range(_CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join(60)

    def more(self, count: int) -> None:
        """Wait until so many more have been answered, or one failed."""
        wanted = self.done + count
        assert wait.until(lambda: (self.done >= wanted or bool(self.failed)) or None, 60, 0.05)

    def _client(self, number: int) -> None:
        with httpx.Client(timeout=60, trust_env=False) as http:
            turn = 0
            while not self._over.is_set():
                turn += 1
                # Conversations: what was said before, and more.
                prompt = f"client {number} " * (20 + 4 * (turn % 20))
                body = {"model": _MODEL, "prompt": prompt, "max_tokens": _TOKENS, "stream": turn % 3 != 0}
                why = self._one(http, body)
                if why:
                    self.failed.append(f"{time.monotonic():.1f} client {number} turn {turn}: {why}")
                else:
                    self.done += 1

    def _one(self, http: httpx.Client, body: dict[str, Any]) -> str | None:
        try:
            if not body["stream"]:
                answer = http.post(f"{self.url}/v1/completions", json=body)
                text = answer.json()["choices"][0]["text"] if answer.is_success else ""
                return None if len(text) == _TOKENS else f"{answer.status_code} {answer.text[:200]}"
            with http.stream("POST", f"{self.url}/v1/completions", json=body) as answer:
                lines = [line[5:].strip() for line in answer.iter_lines() if line.startswith("data:")]
                texts = [json.loads(line)["choices"] for line in lines if line != "[DONE]"]
                tokens = sum(len(choices[0]["text"]) for choices in texts if choices)
                whole = answer.is_success and lines[-1:] == ["[DONE]"] and tokens == _TOKENS
                return None if whole else f"{answer.status_code}, {tokens} tokens, ended with {lines[-1:]}"
        except (httpx.HTTPError, ValueError, KeyError) as error:
            return f"{type(error).__name__}: {error}"


def _site(stack: Stack, folder: Path, said: list[str]) -> Site:
    """The stack as a site, its units started and stopped as processes."""
    document = documents.cluster(folder)
    document["profile"] = "router"
    shells = {node["name"]: FakeShell() for node in document["nodes"]}
    for node in document["nodes"]:
        name = node["name"]
        node["engines"] = [{**node["engines"][0], "host": "127.0.0.1", "port": stack.ports[name]}]

        def show(_: Sequence[str], name: str = name) -> str:
            active = "active" if stack.runs(name) else "inactive"
            return f"Id=vllm@0.service\nLoadState=loaded\nActiveState={active}\nResult=success"

        def stop(_: Sequence[str], name: str = name) -> str:
            stack.stop(name)
            return ""

        def start(_: Sequence[str], name: str = name) -> str:
            stack.start(name)
            return ""

        shells[name].answers = {"systemctl show": show, "systemctl stop": stop, "systemctl start": start}
        shells[name].ports = {("127.0.0.1", port): port for port in (*stack.ports.values(), stack.router_port)}
        if node["router"]:
            node["router"] |= {"host": "127.0.0.1", "port": stack.router_port}
    return Site(parse(document), shells, said.append)


@pytest.fixture(scope="module", params=["kv_aware", "cache_aware"])
def stack(
    node_python: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Stack]:
    with Stack(node_python, tmp_path_factory.mktemp("stack"), request.param) as made:
        yield made


def test_no_request_fails_while_each_replica_is_drained_restarted_and_put_back(stack: Stack, tmp_path: Path) -> None:
    said: list[str] = []
    clients, site = stack.clients, _site(stack, tmp_path, said)
    with clients.asking():
        clients.more(30)
        for name in ("node1", "node2"):
            replicas = chosen(site.cluster, [name])
            drain(site, replicas, Leaving(timeout_s=60, stop=True))
            assert not stack.runs(name)
            clients.more(15)
            undrain(site, replicas, 60)
            clients.more(30)
    print(f"{stack.policy}: {clients.done} answered, {len(clients.failed)} failed", file=sys.stderr)
    assert clients.failed == []
    assert clients.done >= 120
    # It was busy when it was drained, or this shows nothing.
    assert any(" running" in line and not line.startswith("node1/0: 0") for line in said if line.startswith("node1/0:"))


def test_a_router_that_restarts_fails_no_request_for_a_replica_that_is_stopped(stack: Stack, tmp_path: Path) -> None:
    site, clients = _site(stack, tmp_path, []), stack.clients
    replicas = chosen(site.cluster, ["node2"])
    drain(site, replicas, Leaving(timeout_s=60, stop=True))
    stack.stop("router")
    stack.start_router()
    # It chooses the stopped one too, until it sees for itself.
    assert replicas[0].url in site.routers[0].workers()
    with clients.asking():
        clients.more(40)
    assert clients.failed == []
    undrain(site, replicas, 60)
    assert site.routers[0].workers()[replicas[0].url]
