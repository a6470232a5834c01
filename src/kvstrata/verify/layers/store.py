"""The stores of a node: guarded by their password, keep what they are given, and are what they claim."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import cast

import redis

from kvstrata.cluster import Store, StoreEngine, Tier
from kvstrata.verify import resp
from kvstrata.verify.check import Check, Json, UnmetError
from kvstrata.verify.context import NodeContext, Peer
from kvstrata.verify.shell import Shell

VALUE_BYTES = 1 << 20
# If the verifier dies between writing and deleting, the store forgets the key by itself.
KEY_TTL_S = 120
_TIMEOUT_S = 10.0


def checks(ctx: NodeContext) -> Iterator[Check]:
    """Every store of the node, and once for all of them what a DRAM store can't prove."""
    for store in ctx.node.stores:
        yield from _store(ctx, store)
    dram = [store.drive for store in ctx.node.stores if store.tier is Tier.DRAM]
    if dram:
        yield ctx.question(
            "store.ssd",
            f"SSD tier on {', '.join(dram)}",
            "Kvrocks keeping its data on the drive",
            "https://github.com/apache/kvrocks (set kvrocks_binary_src to a kvrocks binary)",
        ).skip(
            "DRAM store (redis-server): NOT the SSD tier. Not proven here: that KV survives a "
            "restart of the store or of the node, the drive's bandwidth, the bound on disk use"
        )


def _store(ctx: NodeContext, store: Store) -> Iterator[Check]:
    name = f"{store.drive} {store.address}"
    journal = ctx.journal(store.unit)
    yield ctx.question(
        "store.auth",
        f"{name} password",
        "right password accepted; a wrong one and none refused",
        journal,
    ).ask(lambda: _auth(ctx.shell, store))
    numbers: dict[str, Json] = {}
    yield ctx.question(
        "store.roundtrip",
        f"{name} round trip",
        "1 MiB in a hash field written, read back with equal sha256, deleted",
        journal,
    ).ask(lambda: _round_trip(ctx.shell, store, numbers), numbers)
    versions: dict[str, Json] = {}
    yield ctx.question("store.engine", f"{name} server", f"{store.engine.value}", journal).ask(
        lambda: _engine(ctx.shell, store, versions), versions
    )
    if store.engine is StoreEngine.KVROCKS:
        mounts = [mount.path for mount in ctx.node.mounts if PurePosixPath(mount.path).name == store.drive]
        yield ctx.question(
            "store.dir",
            f"{name} data folder",
            f"under the drive's mount {mounts[0] if mounts else f'(no mount named {store.drive})'}",
            ctx.command(f"systemctl cat {store.unit}"),
        ).ask(lambda: _folder(ctx.shell, store, mounts))
    if ctx.peer is not None:
        peer = ctx.peer
        yield ctx.question(
            "store.fabric",
            f"{name} from {peer.node.name}",
            "answers another node",
            ctx.command("ss -ltn"),
        ).ask(lambda: _from_peer(peer, store))


def _auth(shell: Shell, store: Store) -> str:
    wrong = secrets.token_hex(16)
    for password, described in ((None, "no password"), (wrong, "a wrong password")):
        try:
            with resp.connection(shell, store, password, _TIMEOUT_S) as client:
                client.ping()
        except redis.AuthenticationError:
            continue
        raise UnmetError(f"{described} was accepted")
    _ping(shell, store)
    return "right password accepted, a wrong one and none refused"


def _ping(shell: Shell, store: Store) -> None:
    with resp.authenticated(shell, store, _TIMEOUT_S) as client:
        client.ping()


def _round_trip(shell: Shell, store: Store, numbers: dict[str, Json]) -> str:
    value = secrets.token_bytes(VALUE_BYTES)
    key = f"kvstrata:verify:{secrets.token_hex(16)}"
    with resp.authenticated(shell, store, _TIMEOUT_S) as client:
        try:
            started = time.monotonic()
            client.hset(key, "value", cast(str, value))
            written = time.monotonic()
            client.expire(key, KEY_TTL_S)
            asked = time.monotonic()
            back = cast(bytes | None, client.hget(key, "value"))
            read = time.monotonic()
        finally:
            deleted = client.delete(key)
        left = client.exists(key)
    if back is None:
        raise UnmetError("the value just written is not there")
    want, got = hashlib.sha256(value).hexdigest(), hashlib.sha256(back).hexdigest()
    if want != got:
        raise UnmetError(f"{len(back)} bytes came back with sha256 {got[:16]}..., written was {want[:16]}...")
    if deleted != 1 or left:
        raise UnmetError(f"the key {key} could not be deleted")
    write_ms, read_ms = (written - started) * 1000, (read - asked) * 1000
    numbers |= {"write_ms": round(write_ms, 2), "read_ms": round(read_ms, 2), "bytes": VALUE_BYTES}
    return f"1 MiB written in {write_ms:.0f} ms, read in {read_ms:.0f} ms, sha256 equal, deleted"


def _engine(shell: Shell, store: Store, versions: dict[str, Json]) -> str:
    with resp.authenticated(shell, store, _TIMEOUT_S) as client:
        info = client.info("server")
    # Kvrocks also reports a redis_version, for clients that ask for one.
    if "kvrocks_version" in info:
        found, version = StoreEngine.KVROCKS, str(info["kvrocks_version"])
    else:
        found, version = StoreEngine.REDIS, str(info.get("redis_version", "of unknown version"))
    versions |= {"engine": found.value, "version": version}
    if found is not store.engine:
        raise UnmetError(f"{found.value} {version}")
    return f"{found.value} {version}"


def _folder(shell: Shell, store: Store, mounts: list[str]) -> str:
    with resp.authenticated(shell, store, _TIMEOUT_S) as client:
        answer = cast(dict[str, str], client.config_get("dir"))
    folder = PurePosixPath(answer.get("dir", "?"))
    if not any(folder.is_relative_to(mount) for mount in mounts):
        raise UnmetError(str(folder))
    return str(folder)


def _from_peer(peer: Peer, store: Store) -> str:
    started = time.monotonic()
    _ping(peer.shell, store)
    return f"answered {peer.node.name} in {(time.monotonic() - started) * 1000:.0f} ms"
