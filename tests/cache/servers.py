"""Real servers on loopback, filled as the adapter on the nodes fills them."""

from __future__ import annotations

import json
import queue
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
import redis

from kvstrata.l2.config import EndpointConfig, TierConfig
from kvstrata.l2.names import namespace_of
from kvstrata.l2.tier import Tier
from kvstrata.l2.writing import Stored
from kvstrata.paths import cache_dir
from tests.verify.fakes import documents

PASSWORD = "store-secret-4711"
CAPACITY = 256 << 20
PIECE = 64 << 10
OLD = {"model": "m", "revision": "r1", "dtype": "bfloat16", "kv_dtype": "auto", "tensor_parallel": 2}
OLD |= {"chunk_tokens": 256, "wheels": "0123456789abcdef0123"}
NEW = OLD | {"revision": "r2"}
OLD_NS, NEW_NS = namespace_of(OLD), namespace_of(NEW)

_START_S = 30.0
_KVROCKS = {
    "max-db-size": "1",
    "rocksdb.enable_blob_files": "yes",
    "rocksdb.min_blob_size": "4096",
    "rocksdb.compression": "no",
    "rocksdb.wal_ttl_seconds": "0",
    "rocksdb.wal_size_limit_mb": "0",
    "rocksdb.write_options.disable_wal": "yes",
}


def binary(kind: str) -> Path:
    """The server's program; no redis-server is no pass, no Kvrocks is a skip that says so."""
    if kind == "kvrocks":
        found = cache_dir() / "bin" / "kvrocks"
        if not found.is_file():
            pytest.skip(f"NO KVROCKS at {found}: the cache commands were tested with redis-server alone")
        return found
    program = shutil.which("redis-server")
    if program is None:
        pytest.fail("no redis-server on PATH: apt-get install redis-server (and stop its service)")
    return Path(program)


class Server:
    """One server with a password; `stop` and `start` as often as a test likes."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.program = binary(kind)
        self.folder = folder
        folder.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        own = {"bind": "127.0.0.1", "port": str(self.port), "dir": str(self.folder), "requirepass": PASSWORD}
        own |= _KVROCKS | {"log-dir": "stdout"} if self.kind == "kvrocks" else {"save": '""', "appendonly": "no"}
        conf = self.folder / "server.conf"
        conf.write_text("".join(f"{name} {value}\n" for name, value in own.items()))
        argv = [str(self.program), *(["-c"] if self.kind == "kvrocks" else []), str(conf)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(argv, stdout=log, stderr=log)
        over = time.monotonic() + _START_S
        while True:
            try:
                if self.client.ping():
                    return
            except redis.ConnectionError:
                assert self._process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < over, "the server did not answer in time"
                time.sleep(0.01)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(_START_S)
            self._process = None

    @property
    def client(self) -> Any:
        """A connection of the test's own."""
        return redis.Redis(port=self.port, password=PASSWORD, protocol=2, driver_info=None, socket_timeout=10)

    def chunks(self, namespace: str) -> int:
        """Chunks of a namespace that are there, indexed or not."""
        return sum(1 for _ in self.client.scan_iter(match=f"kvs:{namespace}:*"))

    def traces(self, namespace: str) -> list[bytes]:
        """Every key, and every entry of the registry, that names a namespace."""
        client = self.client
        names = [*client.scan_iter(count=1000), *client.smembers("kvsx")]
        return sorted(name for name in names if namespace.encode() in name)

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def fill(
    servers: Sequence[Server], identity: dict[str, Any], chunks: Sequence[tuple[str, int]], width: int = 1
) -> None:
    """Store chunks, each (name, bytes), under the namespace of `identity`."""
    with _tier(servers, identity, width) as tier:
        done: queue.Queue[list[Stored]] = queue.Queue()
        tier.store([(name.encode(), memoryview(content(name, size))) for name, size in chunks], done.put)
        assert [one.why for one in done.get(timeout=30)] == ["stored"] * len(chunks)


def loadable(servers: Sequence[Server], identity: dict[str, Any], chunks: Sequence[tuple[str, int]]) -> list[bool]:
    """Tell which of these chunks come back, byte for byte."""
    buffers = [bytearray(size) for _, size in chunks]
    with _tier(servers, identity) as tier:
        done: queue.Queue[list[bool]] = queue.Queue()
        named = zip(chunks, buffers, strict=True)
        tier.load([(name.encode(), memoryview(buffer)) for (name, _), buffer in named], done.put)
        flags = done.get(timeout=30)
    whole = [bytes(buffer) == content(name, size) for (name, size), buffer in zip(chunks, buffers, strict=True)]
    return [flag and same for flag, same in zip(flags, whole, strict=True)]


@contextmanager
def _tier(servers: Sequence[Server], identity: dict[str, Any], width: int = 1) -> Iterator[Tier]:
    endpoints = tuple(EndpointConfig("127.0.0.1", server.port, CAPACITY, password=PASSWORD) for server in servers)
    tier = Tier(
        TierConfig(endpoints, namespace_of(identity), identity, piece_bytes=PIECE, stripe_width=width),
    )
    try:
        yield tier
    finally:
        tier.close()


def content(name: str, size: int) -> bytes:
    """The bytes of a chunk: incompressible, and another for each name."""
    return random.Random(name).randbytes(size)  # noqa: S311


def document(servers: Sequence[Server], namespace: str | None = NEW_NS) -> dict[str, Any]:
    """The cluster document of a site with one store on each node."""
    found = documents.cluster(nodes=len(servers))
    for node, server in zip(found["nodes"], servers, strict=True):
        node["stores"][0] |= {"host": "127.0.0.1", "port": server.port, "password": PASSWORD}
        node["stores"][0] |= {"engine": server.kind, "tier": "ssd" if server.kind == "kvrocks" else "dram"}
        node["stores"][0]["capacity_bytes"] = CAPACITY
        node["lmcache"]["namespace"] = namespace
    return found


def write(path: Path, found: dict[str, Any]) -> Path:
    """Write a document as playbooks/describe.yml does."""
    path.write_text(json.dumps(found))
    path.chmod(0o600)
    return path


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for what another process does by itself."""
    over = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < over
        time.sleep(0.02)
