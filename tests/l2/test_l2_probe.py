"""The probe of a node: one chunk through the adapter's own code on each store, and no trace of it afterwards."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kvstrata.l2 import probe
from kvstrata.l2.config import EndpointConfig, TierConfig
from kvstrata.l2.layout import LayoutError, Manifest
from kvstrata.l2.names import IndexName, chunk_key
from kvstrata.l2.tier import Tier
from kvstrata.l2.wire import Connection
from tests.l2.stores import Store

GIB = 1 << 30


def config_of(stores: list[Store], **changes: Any) -> TierConfig:
    endpoints = tuple(EndpointConfig("127.0.0.1", store.port, GIB, node="a") for store in stores)
    return TierConfig(endpoints, "kvs-0123456789abcdef", local_node="a", **changes)


def names_of(stores: list[Store]) -> list[str]:
    return [f"127.0.0.1:{store.port}" for store in stores]


def keys_of(store: Store) -> list[bytes]:
    return store.listed(b"KEYS", b"*")


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        yield port


def test_a_chunk_goes_through_every_store_and_leaves_nothing(stores: list[Store]) -> None:
    found = probe.run(config_of(stores), names_of(stores), "a")
    assert found["bytes"] == 4 << 20
    for name in names_of(stores):
        seen = found["stores"][name]
        assert (seen["ok"], seen["why"]) == (True, "")
        assert list(seen["took_s"]) == ["store", "lookup", "load", "delete"]
        assert all(seconds > 0 for seconds in seen["took_s"].values())
    assert [keys_of(store) for store in stores] == [[], [], []]


def test_only_the_named_stores_are_visited(stores: list[Store]) -> None:
    found = probe.run(config_of(stores), names_of(stores)[:1], "a")
    assert list(found["stores"]) == names_of(stores)[:1]


def test_a_name_that_the_configuration_lacks_is_refused(stores: list[Store]) -> None:
    with pytest.raises(ValueError, match=r"no such store in the configuration: 127\.0\.0\.1:1"):
        probe.run(config_of(stores), ["127.0.0.1:1"], "a")


def test_the_chunks_of_others_stay_and_nobody_is_evicted(stores: list[Store]) -> None:
    # Full by its own index, with no lease taken: whoever evicted here would begin with this chunk.
    store = stores[0]
    store.call(b"SADD", b"kvsx", b"kvs-other:1073741824")
    store.call(b"ZADD", b"kvsx:kvs-other:1073741824", b"1", b"x" * 16)
    before = keys_of(store)
    found = probe.run(config_of(stores), names_of(stores), "a")
    seen = found["stores"][names_of(stores)[0]]
    assert (seen["ok"], seen["full"], seen["why"]) == (False, True, "its chunks take all of its capacity")
    assert keys_of(store) == before
    assert b"kvsl" not in keys_of(store)


def test_the_lease_of_the_evictor_is_never_taken(stores: list[Store], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []
    sent = Connection.send

    def send(self: Connection, buffers: Any) -> None:
        buffers = list(buffers)
        asked.extend(bytes(buffer[:64]) for buffer in buffers)
        sent(self, buffers)

    monkeypatch.setattr(Connection, "send", send)
    probe.run(config_of(stores), names_of(stores), "a")
    assert asked
    assert not [words for words in asked if b"kvsl" in words]


def test_what_a_killed_probe_left_expires(stores: list[Store]) -> None:
    store = stores[0]
    config = probe.settings(config_of(stores), config_of(stores).endpoints[0], "probe-x")
    tier = Tier(config)
    chunk = probe._Chunk(tier, config, b"z" * 8192)
    try:
        chunk.__enter__()
        chunk.store()
    finally:
        tier.close()
    lives = {key: store.call(b"TTL", key) for key in keys_of(store) if key != b"kvsx"}
    assert len(lives) == 2
    for left in lives.values():
        assert isinstance(left, int)
        assert 0 < left <= probe.TTL_S


def test_what_a_killed_probe_left_is_removed_by_the_next(stores: list[Store]) -> None:
    store, namespace = stores[0], probe.namespace_of_node("a")
    index = IndexName(namespace, probe.CHUNK_BYTES)
    cid = b"c" * 16
    store.call(b"SADD", b"kvsx", index.registered)
    store.call(b"ZADD", index.key, f"{time.time() - probe.STALE_S - 1:.3f}", cid)
    store.call(b"HSET", chunk_key(namespace, cid), b"probe", b"1")
    found = probe.run(config_of(stores), names_of(stores), "a")
    assert found["stores"][names_of(stores)[0]]["ok"]
    assert keys_of(store) == []


def test_a_probe_that_runs_at_the_same_time_is_left_alone(stores: list[Store]) -> None:
    store, namespace = stores[0], probe.namespace_of_node("a")
    index = IndexName(namespace, probe.CHUNK_BYTES)
    cid = b"c" * 16
    store.call(b"SADD", b"kvsx", index.registered)
    store.call(b"ZADD", index.key, f"{time.time():.3f}", cid)
    store.call(b"HSET", chunk_key(namespace, cid), b"probe", b"1")
    assert probe.run(config_of(stores), names_of(stores), "a")["stores"][names_of(stores)[0]]["ok"]
    assert sorted(keys_of(store)) == sorted([b"kvsx", index.key, chunk_key(namespace, cid)])


def test_a_store_that_is_gone_is_named_with_the_reason_and_the_others_are_fine(stores: list[Store]) -> None:
    gone = EndpointConfig("127.0.0.1", 1, GIB)
    config = config_of(stores)
    config = replace(config, endpoints=(*config.endpoints, gone))
    found = probe.run(config, [*names_of(stores), gone.name], "a")
    assert "Connection refused" in found["stores"][gone.name]["why"]
    assert [found["stores"][name]["ok"] for name in names_of(stores)] == [True, True, True]


def test_a_store_that_hangs_ends_the_probe_in_time(silent: int) -> None:
    config = TierConfig((EndpointConfig("127.0.0.1", silent, GIB),), "kvs-x")
    started = time.monotonic()
    found = probe.run(config, [f"127.0.0.1:{silent}"], "a")
    assert time.monotonic() - started < probe.WITHIN_S + 1
    assert not found["stores"][f"127.0.0.1:{silent}"]["ok"]
    assert "it does not answer: the deadline passed" in found["stores"][f"127.0.0.1:{silent}"]["why"]


def test_a_visit_that_takes_too_long_is_said_to(silent: int) -> None:
    config = TierConfig((EndpointConfig("127.0.0.1", silent, GIB),), "kvs-x")
    found = probe.run(config, [f"127.0.0.1:{silent}"], "a", within_s=0.05)
    assert found["stores"][f"127.0.0.1:{silent}"]["why"] == "not done within 0.05 s"


def test_a_chunk_that_changes_on_its_way_is_named(stores: list[Store], monkeypatch: pytest.MonkeyPatch) -> None:
    def other(self: Manifest, index: int, data: memoryview) -> bool:
        data[0] ^= 1
        return True

    monkeypatch.setattr(Manifest, "matches", other)
    seen = probe.run(config_of(stores), names_of(stores)[:1], "a")["stores"][names_of(stores)[0]]
    assert not seen["ok"]
    assert "what came back has sha256" in seen["why"]
    assert keys_of(stores[0]) == []


def test_a_damaged_chunk_is_named(stores: list[Store], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Manifest, "matches", lambda self, index, data: False)
    seen = probe.run(config_of(stores), names_of(stores)[:1], "a")["stores"][names_of(stores)[0]]
    assert "cannot be loaded (load_damaged)" in seen["why"]
    assert keys_of(stores[0]) == []


def test_a_chunk_without_a_readable_manifest_is_not_found(stores: list[Store], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(data: bytes) -> Manifest:
        raise LayoutError("broken")

    monkeypatch.setattr(Manifest, "decode", broken)
    seen = probe.run(config_of(stores), names_of(stores)[:1], "a")["stores"][names_of(stores)[0]]
    assert seen["why"] == "the chunk just stored is not found"
    assert keys_of(stores[0]) == []


def deployed(folder: Path, stores: list[Store], password: str | None = None) -> Path:
    """Write what the role lmcache writes; return the configuration's path."""
    endpoints = [{"host": "127.0.0.1", "port": store.port, "node": "a", "capacity_bytes": GIB} for store in stores]
    l2 = {"namespace": "kvs-x", "identity": {}, "local_node": "a", "endpoints": endpoints}
    config = folder / "server.json"
    config.write_text(json.dumps({"flags": {}, "l2": l2}))
    passwords = dict.fromkeys(names_of(stores), password or "")
    (folder / probe.CREDENTIAL).write_text(json.dumps(passwords))
    return config


def command_line(config: Path, names: list[str]) -> tuple[list[str], dict[str, str]]:
    argv = [sys.executable, "-m", "kvstrata.l2.probe", str(config), *names]
    return argv, {**os.environ, "CREDENTIALS_DIRECTORY": str(config.parent)}


def test_the_command_prints_one_object(stores: list[Store], tmp_path: Path) -> None:
    argv, environ = command_line(deployed(tmp_path, stores), names_of(stores))
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=30, check=True)
    found = json.loads(done.stdout)
    assert [found["stores"][name]["ok"] for name in names_of(stores)] == [True, True, True]
    assert found["namespace"] == probe.namespace_of_node("a")


def test_a_command_that_is_killed_leaves_only_what_expires(stores: list[Store], tmp_path: Path) -> None:
    argv, environ = command_line(deployed(tmp_path, stores), names_of(stores))
    process = subprocess.Popen(argv, env=environ, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 20
    while not any(keys_of(store) for store in stores) and time.monotonic() < until:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for store in stores:
        for key in keys_of(store):
            left = store.call(b"TTL", key)
            assert key == b"kvsx" or (isinstance(left, int) and left > 0)
    assert probe.run(config_of(stores), names_of(stores), "a", within_s=20)["stores"][names_of(stores)[0]]["ok"]


def test_without_credentials_it_could_not_look(stores: list[Store], tmp_path: Path) -> None:
    argv, environ = command_line(deployed(tmp_path, stores), names_of(stores))
    del environ["CREDENTIALS_DIRECTORY"]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "CREDENTIALS_DIRECTORY is not set" in done.stderr


def test_a_refused_password_is_named_without_being_shown(stores: list[Store], tmp_path: Path) -> None:
    argv, environ = command_line(deployed(tmp_path, stores, password="wrong-password"), names_of(stores))
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=30, check=True)
    assert all(not seen["ok"] and seen["why"] for seen in json.loads(done.stdout)["stores"].values())
    assert "wrong-password" not in done.stdout + done.stderr
