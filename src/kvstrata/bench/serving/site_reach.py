"""How a benchmark reaches what runs on a site: its services, its stores, its GPUs."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import redis

from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving.sampling import GPU_QUERY, GpuSampler, summarize
from kvstrata.cache import reach
from kvstrata.cluster import Cluster, Node
from kvstrata.verify.check import UnableError
from kvstrata.verify.shell import Shell
from kvstrata.verify.ssh import SshShell

_CONNECT_S = 3.0
_STORE_S = 30.0
_READ_S = 120.0
_GPU_PERIOD_S = 2.0


class SiteReach:
    """SSH connections to the nodes that are measured, and to those with stores."""

    def __init__(self, cluster: Cluster, nodes: Sequence[Node], shells: Mapping[str, Shell] | None = None) -> None:
        """Connect when first used; `shells` are used instead of connections of our own, and not closed."""
        self._cluster, self._owned = cluster, shells is None
        wanted = {node.name: node for node in (*nodes, *(n for n in cluster.nodes if n.stores))}
        self.shells = shells or {name: SshShell(node.ssh) for name, node in wanted.items()}

    @property
    def store_shells(self) -> Mapping[str, Shell]:
        """Those of the nodes with stores, by their names."""
        return {node.name: self.shells[node.name] for node in self._cluster.nodes if node.stores}

    def close(self) -> None:
        """Close the connections."""
        if self._owned:
            for shell in self.shells.values():
                shell.close()

    def url(self, node: str, host: str, port: int) -> str:
        """Return the base URL, here, of a service as the node sees it; through SSH."""
        return f"http://127.0.0.1:{self.shells[node].tunnel(host, port).port}"

    def endpoint(self, node: str, host: str, port: int) -> tuple[str, str | None]:
        """Return where load goes, and a note where it must go through SSH."""
        try:
            with socket.create_connection((host, port), _CONNECT_S):
                return f"http://{host}:{port}", None
        except OSError:
            note = f"{host}:{port} cannot be reached from here: the load goes through SSH, which adds to every time"
            return self.url(node, host, port), note

    def read(self, node: str, path: str) -> str | None:
        """Return the text of a file of a node, None where it cannot be read."""
        try:
            done = self.shells[node].run(["cat", path], _READ_S)
        except UnableError as error:
            raise BenchError(f"{node}: {error}") from error
        return done.stdout if done.exit_code == 0 else None

    def infos(self) -> dict[str, str]:
        """Return what INFO says, by the address of each store that answers."""

        def info(client: redis.Redis) -> str:
            # redis-py reads INFO into a mapping; counters.from_info wants its lines.
            asked: Any = client
            values: Mapping[str, object] = asked.info()
            return "".join(f"{name}:{value}\n" for name, value in values.items())

        answers = reach.ask(self._cluster, self.store_shells, info, _STORE_S)
        return {answer.place.store.address: answer.value for answer in answers if answer.value is not None}

    def gpu_sampler(self, node: str) -> GpuSampler:
        """Return what samples the GPUs of a node."""
        return RemoteGpuSampler(self.shells[node])


class RemoteGpuSampler(GpuSampler):
    """Asks nvidia-smi on a node, as long as there is one."""

    def __init__(self, shell: Shell) -> None:
        """Ask through `shell`."""
        super().__init__(program="")
        self._shell = shell
        self._over = threading.Event()
        self._asking: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        self._over.clear()
        self._lines = []
        self._asking = threading.Thread(target=self._ask, daemon=True)
        self._asking.start()

    def stop(self) -> dict[str, dict[str, float]]:
        """End; see GpuSampler."""
        self._over.set()
        if self._asking is not None:
            self._asking.join()
        return summarize(self._lines, _GPU_PERIOD_S)

    def _ask(self) -> None:
        while not self._over.wait(_GPU_PERIOD_S):
            try:
                done = self._shell.run(["nvidia-smi", *GPU_QUERY], timeout_s=10)
            except UnableError:
                return
            if done.exit_code:
                return
            self._lines += done.stdout.splitlines()
