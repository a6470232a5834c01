"""What planting needs of the lab: its nodes from inside and from outside, and when they are well."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import httpx

from kvstrata.lab import lab, nodes, paths, shell
from kvstrata.lab.errors import LabError
from kvstrata.lab.spec import LabSpec, preset
from kvstrata.paths import PROJECT

SETTLE_S = 300.0
POLL_S = 1.0
ENGINE_PORT, CACHE_PORT, ROUTER_PORT = 8000, 8090, 9000


@dataclass(frozen=True)
class Node:
    """One node of the lab."""

    lab: str
    name: str
    address: str
    container: str
    devices: tuple[str, ...]

    def run(self, script: str, timeout_s: float = 300) -> str:
        """Run a shell script as root, up to its first error; return its output. CommandError when it fails."""
        return shell.run([*lab.access(self.lab).argv(self.address), "sh -eu -s"], stdin=script, timeout_s=timeout_s)

    @property
    def pid(self) -> int:
        """The node's first process, as this machine sees it."""
        return int(shell.run(("podman", "inspect", "--format", "{{.State.Pid}}", self.container)))

    def within(self, namespace: str, *argv: str) -> str:
        """Run a program of this machine in the node's network (`net`), or one of the node's in its mounts (`mount`).

        Unlike on the node itself, every device of this machine may be opened.
        """
        return shell.run(("nsenter", "--target", str(self.pid), f"--{namespace}", *argv))


@dataclass(frozen=True)
class Site:
    """The lab under test, with the inventory that deployed it."""

    spec: LabSpec
    nodes: tuple[Node, ...]
    inventory: Path = PROJECT / "inventories" / "lab"

    def node(self, name: str) -> Node:
        """The node of that name; LabError when it does not run."""
        found = next((node for node in self.nodes if node.name == name), None)
        if found is None:
            raise LabError(f"node {name!r}: running are {', '.join(node.name for node in self.nodes) or 'none'}")
        return found

    @property
    def scratch(self) -> Path:
        """A folder on this machine for what a fault needs."""
        folder = paths.lab_dir(self.spec.name) / "planted"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def settle(self, besides: Collection[str] = (), timeout_s: float = SETTLE_S) -> None:
        """Wait until every service of every node is well, `besides` words of `unsettled`; LabError if that is late."""
        deadline = time.monotonic() + timeout_s
        while True:
            missing = [text for text in self.unsettled() if not any(word in text for word in besides)]
            if not missing:
                return
            if time.monotonic() >= deadline:
                raise LabError(f"not well after {timeout_s:.0f} s: {'; '.join(missing)}")
            time.sleep(POLL_S)

    def unsettled(self) -> list[str]:
        """What is not well, in words that begin with the node's name."""
        found: list[str] = []
        for node in self.nodes:
            found += [f"{node.name}: {text}" for text in _of_node(node)]
        workers = _json(f"http://{self.nodes[0].address}:{ROUTER_PORT}/workers")
        listed = workers.get("workers", []) if isinstance(workers, dict) else []
        sick = len(self.nodes) - sum(worker.get("is_healthy") is True for worker in listed)
        return [*found, *([f"{self.nodes[0].name}: router misses {sick} engines"] if sick else [])]


def running(name: str = "lab") -> Site:
    """The lab that runs; LabError when none does."""
    spec = preset(name)
    found = tuple(
        Node(name, container.node, str(spec.address(container.node)), container.name, container.devices)
        for container in nodes.containers(name)
        if container.running
    )
    if not found:
        raise LabError(f"lab {name} does not run; `make lab` deploys it")
    return Site(spec, found)


def _of_node(node: Node) -> list[str]:
    found = []
    if _status(f"http://{node.address}:{ENGINE_PORT}/health") != httpx.codes.OK:
        found.append("engine not healthy")
    # LMCache listens on loopback alone.
    asked = f"curl -sS -m 5 http://127.0.0.1:{CACHE_PORT}/status 2>&1 || true"
    units = "systemctl is-active 'kvrocks@*' lmcache vllm@0 || true"
    states, _, text = _output(node, f"{units}\necho ==\n{asked}").partition("==")
    if set(states.split()) - {"active"} or not states.split():
        found.append(f"units are {' '.join(states.split()) or 'unknown'}")
    try:
        status = json.loads(text)
    except ValueError:
        return [*found, "cache silent"]
    if not status.get("registered_gpu_ids") and not status.get("registered_non_cuda_instance_ids"):
        found.append("no engine registered")
    adapters = status.get("storage_manager", {}).get("l2_adapters", [])
    open_ = [name for adapter in adapters for name, e in adapter.get("endpoints", {}).items() if not e.get("up")]
    return [*found, *([f"breakers open: {', '.join(open_)}"] if open_ else [])]


def _output(node: Node, script: str) -> str:
    try:
        return node.run(script, timeout_s=30)
    except shell.CommandError:
        return ""


def _get[T](url: str, read: Callable[[httpx.Response], T]) -> T | None:
    try:
        # Proxies of this machine are not meant for its own bridge.
        return read(httpx.get(url, timeout=5, trust_env=False))
    except (httpx.HTTPError, ValueError):
        return None


def _status(url: str) -> int | None:
    return _get(url, lambda response: response.status_code)


def _json(url: str) -> object:
    return _get(url, lambda response: response.json())
