"""The stores of a node: guarded by their password, keep what they are given, and are what they claim."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import PurePosixPath

from kvstrata.cluster import Store, StoreEngine, Tier
from kvstrata.verify import nodefiles, tls
from kvstrata.verify.check import Check, Json, NotCheckedError, UnmetError
from kvstrata.verify.context import NodeContext
from kvstrata.verify.layers import certificate
from kvstrata.verify.layers.following import Once, follows_from, upon
from kvstrata.verify.layers.store import access, capacity, config, stalls
from kvstrata.verify.layers.store.look import Seen, look, rocksdb

type Files = Once[dict[str, str | None]]


def checks(ctx: NodeContext) -> Iterator[Check]:
    """Every store of the node, and once for all of them what a DRAM store can't prove."""
    paths = [path for store in ctx.node.stores for path in (store.config_path, store.tls_ca) if path]
    files = Once(lambda: nodefiles.read(ctx.shell, list(dict.fromkeys(paths))))
    for store in ctx.node.stores:
        yield from _store(ctx, store, files)
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


def _store(ctx: NodeContext, store: Store, files: Files) -> Iterator[Check]:
    name, journal = f"{store.drive} {store.address}", ctx.journal(store.unit)
    auth = ctx.question(
        "store.auth", f"{name} password", "right password accepted; a wrong one and none refused", journal
    ).ask(lambda: access.auth(ctx.shell, store))
    yield auth
    seen = Once(lambda: look(ctx.shell, store))
    versions: dict[str, Json] = {}
    engine = ctx.question("store.engine", f"{name} server", f"{store.engine.value}", journal).ask(
        upon(auth, lambda: _engine(store, seen(), versions)), versions
    )
    yield engine
    # Another server than the one meant explains everything that it says of itself.
    ground = engine if engine.bad else auth
    yield from _itself(ctx, store, seen, files, ground)
    yield from _room(ctx, store, seen, auth)
    if store.engine is StoreEngine.KVROCKS:
        held_up: dict[str, Json] = {}
        yield ctx.question(
            "store.stalls",
            f"{name} writes",
            "neither stopped nor slowed down by RocksDB just now",
            ctx.command(f"journalctl -u {store.unit} -g 'Stalling|Stopping|error' -n 50 --no-pager"),
        ).ask(upon(ground, lambda: stalls.judge(seen().info, rocksdb(ctx.shell, store), held_up)), held_up)
    yield from _ways_in(ctx, store, files, auth)


def _itself(ctx: NodeContext, store: Store, seen: Once[Seen], files: Files, ground: Check) -> Iterator[Check]:
    """What it runs with."""
    name = f"{store.drive} {store.address}"
    if store.engine is StoreEngine.KVROCKS:
        mounts = _mounts(ctx, store)
        yield ctx.question(
            "store.dir",
            f"{name} data folder",
            f"under the drive's mount {mounts[0] if mounts else f'(no mount named {store.drive})'}",
            ctx.command(f"systemctl cat {store.unit}"),
        ).ask(upon(ground, lambda: _folder(seen(), mounts)))
    path, numbers = store.config_path, dict[str, Json]()
    question = ctx.question(
        "store.config",
        f"{name} configuration",
        f"every directive of {path or 'its file'} in force",
        ctx.command(f"ls -l --time-style=full-iso {path or '/etc/kvstrata/kvrocks'}"),
    )
    if path is None:
        yield question.skip("that the store runs with the rendered configuration: the inventory names no file")
        return
    yield question.ask(upon(ground, lambda: _config(store, path, seen(), files(), numbers)), numbers)


def _room(ctx: NodeContext, store: Store, seen: Once[Seen], auth: Check) -> Iterator[Check]:
    """Whether it has room, and whether what is written comes back."""
    name, journal = f"{store.drive} {store.address}", ctx.journal(store.unit)
    trip, room = access.RoundTrip(ctx.shell, store), dict[str, Json]()
    full = ctx.question(
        "store.capacity",
        f"{name} capacity",
        "room in its capacity, below max-db-size and on its drive; writes accepted",
        ctx.command(f"df -h /var/lib/kvstrata/drives/{store.drive}"),
    ).ask(upon(auth, lambda: _capacity(ctx, store, seen(), trip, room)), room)
    yield full

    def round_trip() -> str:
        if full.bad and trip.refusal() is not None:
            raise follows_from(full)
        return trip()

    yield ctx.question(
        "store.roundtrip",
        f"{name} round trip",
        "1 MiB in a hash field written, read back with equal sha256, deleted",
        journal,
    ).ask(upon(auth, round_trip), trip.numbers)


def _ways_in(ctx: NodeContext, store: Store, files: Files, auth: Check) -> Iterator[Check]:
    """How others reach it."""
    name, port = f"{store.drive} {store.address}", store.tls_port
    if port is not None:
        numbers: dict[str, Json] = {}
        days = f"{ctx.cluster.verify.limits.certificate_days:g} days"
        yield ctx.question(
            "store.certificate",
            f"{name} certificate on port {port}",
            f"trusted by its clients, for {store.host}, valid for {days} more",
            ctx.command(f"openssl s_client -connect {store.host}:{port} -showcerts"),
        ).ask(upon(auth, lambda: _certificate(ctx, store, port, files(), numbers)), numbers)
    if ctx.peer is not None:
        yield ctx.question(
            "store.fabric", f"{name} from {ctx.peer.node.name}", "answers another node", ctx.command("ss -ltn")
        ).ask(upon(auth, partial(access.from_peer, ctx.peer, store)))


def _engine(store: Store, seen: Seen, versions: dict[str, Json]) -> str:
    found = StoreEngine.KVROCKS if seen.kvrocks else StoreEngine.REDIS
    version = str(seen.info.get(f"{found.value}_version", "of unknown version"))
    versions |= {"engine": found.value, "version": version}
    if found is not store.engine:
        raise UnmetError(f"{found.value} {version}")
    return f"{found.value} {version}"


def _mounts(ctx: NodeContext, store: Store) -> list[str]:
    """Where its drive is mounted."""
    return [mount.path for mount in ctx.node.mounts if PurePosixPath(mount.path).name == store.drive]


def _capacity(ctx: NodeContext, store: Store, seen: Seen, trip: access.RoundTrip, numbers: dict[str, Json]) -> str:
    space = capacity.told(seen)
    if space is None and (mounts := _mounts(ctx, store)):
        space = capacity.asked(ctx.shell, mounts[0])
    return capacity.judge(store, seen, space, ctx.cluster.verify.limits, trip.refusal(), numbers)


def _folder(seen: Seen, mounts: list[str]) -> str:
    folder = PurePosixPath(seen.config.get("dir", "?"))
    if not any(folder.is_relative_to(mount) for mount in mounts):
        raise UnmetError(str(folder))
    return str(folder)


def _config(store: Store, path: str, seen: Seen, files: Mapping[str, str | None], numbers: dict[str, Json]) -> str:
    return config.judge(files.get(path), path, seen.config, store.engine is StoreEngine.KVROCKS, numbers)


def _certificate(
    ctx: NodeContext, store: Store, port: int, files: Mapping[str, str | None], numbers: dict[str, Json]
) -> str:
    limits = ctx.cluster.verify.limits
    if store.tls_ca is not None:
        authority = files.get(store.tls_ca)
        if authority is None:
            raise NotCheckedError(f"whether clients trust it: {store.tls_ca} is not on {ctx.node.name}, or unreadable")
        client = tls.trusting(authority)
        return certificate.judge(ctx.shell, store.host, port, client, limits, numbers, [store.host])
    seen = certificate.judge(ctx.shell, store.host, port, None, limits, numbers)
    return f"{seen}; trusted by nobody: clients are told of no authority (lmcache_stores_ca)"
