"""Chunks over TLS and over a unix socket: the same bytes, on real servers."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kvstrata.bench.server import free_port
from kvstrata.l2.config import TierConfig
from kvstrata.l2.tier import Tier
from tests.l2.stores import KINDS, KVROCKS, Store

MIB = 1 << 20
CHUNK = os.urandom(3 * MIB + 17)


@pytest.fixture(scope="module", params=KINDS)
def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]
) -> Iterator[tuple[Store, int, Path]]:
    """A store that speaks TLS and listens on a socket too: the store, its TLS port, the path of its socket."""
    kind = request.param
    if kind == "kvrocks" and not KVROCKS.exists():
        pytest.skip(f"NOT TESTED WITH KVROCKS: {KVROCKS} does not exist")
    folder = tmp_path_factory.mktemp(kind)
    port, socket = free_port(), folder / "s"
    extra = {"tls-port": port, "tls-cert-file": certificate[0], "tls-key-file": certificate[1], "unixsocket": socket}
    extra |= {"tls-auth-clients": "no", "tls-ca-cert-file": certificate[0]}
    running = Store(kind, folder, extra)
    yield running, port, socket
    running.stop()


def waited(begin: Callable[[Callable[[Any], None]], None]) -> Any:
    over, results = threading.Event(), []

    def done(result: Any) -> None:
        results.append(result)
        over.set()

    begin(done)
    assert over.wait(20), "no answer"
    return results[0]


def round_trip(endpoint: dict[str, Any], name: bytes) -> tuple[Any, Any, bytes, dict[str, Any]]:
    tier = Tier(TierConfig.from_dict({"namespace": "kvs-transport", "endpoints": [endpoint]}))
    try:
        stored = waited(lambda done: tier.store([(name, memoryview(CHUNK))], done))
        buffer = bytearray(len(CHUNK))
        found = waited(lambda done: tier.lookup([[name]], done))
        loaded = waited(lambda done: tier.load([(name, memoryview(buffer))], done))
        assert loaded == found[0]
        return stored[0].why, found, bytes(buffer), tier.status()
    finally:
        tier.close()


def test_tls_carries_a_chunk(store: tuple[Store, int, Path], certificate: tuple[Path, Path]) -> None:
    endpoint = {"host": "127.0.0.1", "port": store[1], "capacity_bytes": 64 * MIB, "tls_ca": str(certificate[0])}
    assert round_trip(endpoint, b"over tls")[:3] == ("stored", [[True]], CHUNK)


def test_a_server_of_another_ca_is_left_alone(store: tuple[Store, int, Path], tmp_path: Path) -> None:
    other = Path("/etc/ssl/certs/ca-certificates.crt")
    endpoint = {"host": "127.0.0.1", "port": store[1], "capacity_bytes": 64 * MIB, "tls_ca": str(other)}
    why, found, _, status = round_trip(endpoint, b"to a stranger")
    assert (why, found) == ("unavailable", [[False]])
    assert "certificate verify failed" in status["endpoints"][f"127.0.0.1:{store[1]}"]["last_failure"]


def test_the_unix_socket_carries_a_chunk_and_tcp_is_not_used(store: tuple[Store, int, Path]) -> None:
    # Nothing listens on this port: only the socket can have answered.
    endpoint = {"host": "127.0.0.1", "port": free_port(), "capacity_bytes": 64 * MIB, "unix": str(store[2])}
    assert round_trip(endpoint, b"by socket")[:3] == ("stored", [[True]], CHUNK)


def test_without_the_socket_tcp_is_used(store: tuple[Store, int, Path]) -> None:
    endpoint = {"host": "127.0.0.1", "port": store[0].port, "capacity_bytes": 64 * MIB, "unix": "/nowhere/s"}
    assert round_trip(endpoint, b"by tcp")[:3] == ("stored", [[True]], CHUNK)
