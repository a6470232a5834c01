"""Simulated clusters of 1 to 500 nodes: one process that speaks SSH, and behind it HTTP and RESP, for every node.

What the verifier sees is computed from a state (`state`), so that a fault is planted by changing one value there.
Each subject has a module of its own: what a node's commands print (`commands`), its engine (`vllm`), its cache
(`lmcache`), its stores (`kvrocks`), the site's endpoint (`router`). `network` says what listens where, `sshd` is the
way in. A command or request that no module knows is written down, and fails the test.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import socket
import threading
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType

import asyncssh

from kvstrata.cluster import Cluster
from tests.verify.simulated import certificates, commands, inventory, network, sshd, web
from tests.verify.simulated.state import FakeSite

# A process that is spawned on a busy machine has to import everything first.
START_S = 90.0


@dataclass(frozen=True)
class Ended:
    """What was left when it ended: what nothing knew, and the processor time it took, in seconds."""

    unknown: tuple[str, ...]
    cpu_s: float


class SimulatedCluster:
    """A site that runs while the `with` lasts. Plant faults in `site` before that.

    A small one runs in a thread of this process, which starts at once; a large one in a process of its own, so that
    nodes and verifier do not share one interpreter.
    """

    def __init__(
        self, folder: Path, nodes: int, timeout_s: float = 60, own_process: bool = False, profile: str = "router"
    ) -> None:
        self.folder = folder
        self.site = FakeSite.of(inventory.document(folder, nodes, free_port(), timeout_s, profile=profile))
        self.ended: Ended | None = None
        self._own_process = own_process
        sshd.write_keys(folder)
        self._write_known_hosts()

    @property
    def cluster(self) -> Cluster:
        """What the verifier is given."""
        return self.site.cluster()

    def write_document(self) -> Path:
        """The file that `kvstrata verify --cluster` reads."""
        file = self.folder / "cluster.json"
        file.write_text(json.dumps(self.site.document))
        return file

    def __enter__(self) -> SimulatedCluster:
        # Spawned: a fork of a process with threads may hang.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        kind = context.Process if self._own_process else threading.Thread
        self._running = kind(target=_serve, args=(self.site, self.folder, theirs), daemon=True)
        self._running.start()
        said = self._pipe.recv() if self._pipe.poll(START_S) else f"not within {START_S:g} s"
        if said != "ready":
            raise RuntimeError(f"the simulated cluster did not start: {said}")
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pipe.send("end")
        if self._pipe.poll(START_S):
            self.ended = self._pipe.recv()
        self._running.join(10)

    def _write_known_hosts(self) -> None:
        key = asyncssh.read_private_key(self.folder / "host_key").export_public_key().decode().split()
        lines = []
        for node in self.site.document["nodes"]:
            lines.append(f"[{node['ssh']['host']}]:{node['ssh']['port']} {key[0]} {key[1]}\n")
        (self.folder / "known_hosts").write_text("".join(lines))


def free_port() -> int:
    """A port that is free on this machine."""
    with socket.create_server(("0.0.0.0", 0)) as listener:  # noqa: S104 - closed at once
        port: int = listener.getsockname()[1]
    return port


def _serve(site: FakeSite, folder: Path, pipe: Connection) -> None:
    asyncio.run(_run(site, folder, pipe))


async def _run(site: FakeSite, folder: Path, pipe: Connection) -> None:
    try:
        listening = await _start(site, folder)
    except Exception:
        pipe.send(traceback.format_exc())
        return
    pipe.send("ready")
    loop, ending = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(pipe.fileno(), ending.set)
    await ending.wait()
    loop.remove_reader(pipe.fileno())
    for acceptor in listening:
        acceptor.close()
    pipe.send(Ended(tuple(site.unknown), time.thread_time()))


async def _start(site: FakeSite, folder: Path) -> list[sshd.Listening]:
    host_key, user_key = (asyncssh.read_private_key(folder / name) for name in ("host_key", "key"))
    public = user_key.convert_to_public()
    wanted = {
        node.name: ((node.stores[0].host,), site.nodes[node.name].certificate_days)
        for node in site.cluster().nodes
        if node.stores and node.stores[0].tls_port is not None
    }
    contexts, authority = certificates.issue(folder, wanted)
    told = site.cluster().edge
    shown = {
        node.name: ((node.edge.host, *told.names), site.nodes[node.name].edge_certificate_days)
        for node in site.cluster().nodes
        if node.edge is not None and told is not None
    }
    edges, its_authority = certificates.issue(folder, shown, "edge")
    (folder / inventory.EDGE_AUTHORITY).write_text(its_authority)
    members = {node.name: ((node.etcd.host,), 90.0) for node in site.cluster().nodes if node.etcd is not None}
    etcds, etcd_authority = certificates.issue(folder, members, "etcd")
    services = network.build(site, network.Shown(contexts, authority, edges, etcds, etcd_authority))
    listening = []
    for name, machine in services.machines.items():

        def answer(words: list[str], name: str = name) -> commands.Said | None:
            return commands.run(services.machines[name], words)

        def reach(host: str, port: int, name: str = name) -> web.Talk | sshd.Refused | sshd.Dropped:
            return services.reach(name, host, port)

        way = sshd.Way(machine.state, answer, reach)
        listening.append(await sshd.listen(way, machine.node.ssh.host, machine.node.ssh.port, host_key, public))
    return listening
