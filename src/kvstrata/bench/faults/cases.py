"""The faults, each a function of a Rig. What must hold for every one of them is judged in rows.py."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kvstrata.bench.faults import isolate
from kvstrata.bench.faults.crashes import client_killed, store_killed
from kvstrata.bench.faults.fullness import full, full_filesystem
from kvstrata.bench.faults.probe import CHUNK_BYTES, Probe
from kvstrata.bench.faults.proxy import Rule
from kvstrata.bench.faults.rig import Rig
from kvstrata.bench.faults.servers import PASSWORD
from kvstrata.l2.names import chunk_id
from kvstrata.l2.placement import ranking, seed

MIB = 1 << 20
CHUNKS = 6
_FLEET_CHUNKS = 16
# Kept up for so long, that more than one round of operations meets it.
_HELD_S = 2.0


@dataclass(frozen=True)
class Case:
    """One fault of the matrix."""

    name: str
    what: str
    """In a few words, for the table."""
    run: Callable[[Rig], None]
    ours_only: str = ""
    """Why LMCache's own adapters have no such case."""
    default_deadlines: bool = False
    limit_s: float = 100.0
    """After which the case's process is killed, and counts as hung."""


def restarted(rig: Rig) -> None:
    """Stop the store with SIGTERM, use the adapter meanwhile, and start the store again."""
    server, names = rig.server().start(), rig.names(CHUNKS)
    probe = _filled(rig, server.port, names)
    server.stop()
    _use(rig, probe, names)
    server.start()
    probe.await_back()
    _old_chunks(rig, probe, names)


def started_late(rig: Rig) -> None:
    """Open the adapter and use it before the store is there."""
    server, names = rig.server(), rig.names(CHUNKS)
    probe = _opened(rig, server.port, PASSWORD)
    if probe is None:
        return
    _use(rig, probe, names)
    server.start()
    probe.await_back()


def hung(rig: Rig) -> None:
    """Hold the store with SIGSTOP between a lookup and its load, and let it go on later."""
    server, names = rig.server().start(), rig.names(CHUNKS)
    probe = _filled(rig, server.port, names)
    probe.lookup(names)
    server.pause()
    loaded = rig.endures(lambda: probe.load(names))
    rig.seen.require(not any(loaded or []), "loaded from a store that was held")
    _use(rig, probe, names)
    server.resume()
    probe.await_back()
    probe.unlock(names)
    _old_chunks(rig, probe, names)


def other_size(rig: Rig) -> None:
    """Let values be a byte too short or too long, and ask for a chunk with a buffer of another size."""
    server, names = rig.server().start(), rig.names(CHUNKS)
    probe = _filled(rig, server.port, names)
    tamper = rig.tamper(server)
    tamper.shorten(names[0])
    tamper.lengthen(names[1])
    _only(rig, rig.endures(lambda: probe.fetch(names)), names, names[2:])
    probe.lookup([names[2]])
    wrong = rig.endures(lambda: probe.load([names[2]], CHUNK_BYTES // 2))
    rig.seen.require(not any(wrong or []), "half a chunk was taken for a whole one")
    probe.unlock([names[2]])
    probe.await_back()


def vanished(rig: Rig) -> None:
    """Delete chunks between their lookup and their load."""
    server, names = rig.server().start(), rig.names(CHUNKS)
    probe = _filled(rig, server.port, names)
    probe.lookup(names)
    tamper = rig.tamper(server)
    for name in names[:2]:
        tamper.delete(name)
    _only(rig, rig.endures(lambda: probe.load(names)), names, names[2:])
    probe.unlock(names)
    probe.await_back()


def corrupted(rig: Rig) -> None:
    """Turn one bit of a chunk, and with kvstrata one of a manifest."""
    server, names = rig.server().start(), rig.names(CHUNKS)
    probe = _filled(rig, server.port, names)
    tamper = rig.tamper(server)
    tamper.corrupt(names[0])
    spared = names[1:]
    if rig.ours:
        tamper.corrupt_manifest(names[1])
        spared = names[2:]
    _only(rig, rig.endures(lambda: probe.fetch(names)), names, spared)
    probe.await_back()
    if rig.ours:
        # What is damaged makes room for a good one: it is stored anew, and not found for ever.
        probe.store(names[:1])
        rig.seen.require(probe.fetch(names[:1]) == [True], "a damaged chunk could not be replaced")


def cut_loading(rig: Rig) -> None:
    """Cut connections in the middle of a value that is being loaded."""
    server, names = rig.server().start(), rig.names(CHUNKS)
    proxy = rig.proxy(server)
    probe = _filled(rig, proxy.port, names)
    for after in (10, 300_000, 3 * MIB + 1):
        rig.endures(lambda: probe.lookup(names))
        proxy.replies = Rule(after, times=2)
        loaded = rig.endures(lambda: probe.load(names))
        probe.unlock(names)
        rig.seen.figures[f"loaded, cut after {after}"] = sum(loaded or [])
    rig.seen.require(proxy.struck >= 3, f"only {proxy.struck} connections were cut")
    proxy.release()
    probe.await_back()
    _old_chunks(rig, probe, names)


def cut_storing(rig: Rig) -> None:
    """Cut connections in the middle of a value that is being stored."""
    server, names = rig.server().start(), rig.names(CHUNKS)
    proxy = rig.proxy(server)
    probe = _filled(rig, proxy.port, rig.names(1, "first"))
    proxy.requests = Rule(2 * MIB + 1, times=2)
    stored = rig.endures(lambda: probe.store(names))
    rig.seen.notes.append(f"LMCache was told that the batch was {'stored' if stored else 'not stored'}")
    proxy.release()
    probe.await_back()
    came = rig.endures(lambda: probe.fetch(names))
    rig.seen.figures["chunks that came whole"] = sum(came or [])
    rig.seen.require(not stored or (came is not None and all(came)), "reported as stored, and not there")


def cut_answer(rig: Rig) -> None:
    """Cut the connection when the store has done the last command of a store, and before it answers."""
    server, names = rig.server().start(), rig.names(CHUNKS)
    proxy = rig.proxy(server)
    probe = _filled(rig, proxy.port, rig.names(1, "first"))
    for name in names:
        proxy.answer_to = b"HSETNX" if rig.ours else b"SET\r\n"
        stored = rig.endures(lambda: probe.store([name]))  # noqa: B023 - called at once
        came = rig.endures(lambda: probe.fetch([name]))  # noqa: B023
        rig.seen.require(not stored or came == [True], f"{name} was reported as stored, and is not there")
        if stored is None or came is None:
            break
    rig.seen.require(proxy.struck > 0, "no connection was cut")
    proxy.release()
    probe.await_back()


def held_loading(rig: Rig) -> None:
    """Stop the flow in the middle of a value, with the connection left open."""
    server, names = rig.server().start(), rig.names(CHUNKS)
    proxy = rig.proxy(server)
    probe = _filled(rig, proxy.port, names)
    probe.lookup(names)
    proxy.replies = Rule(300_000, times=64, hold=True)
    rig.endures(lambda: probe.load(names))
    proxy.release()
    probe.await_back()
    probe.unlock(names)
    _old_chunks(rig, probe, names)


def delayed(rig: Rig) -> None:
    """Delay each part of a reply by 20 ms in a proxy: some MB/s."""
    server, names = rig.server().start(), rig.names(CHUNKS)
    proxy = rig.proxy(server)
    probe = _filled(rig, proxy.port, names)
    proxy.delay_s = 0.02
    came = rig.endures(lambda: probe.fetch(names))
    rig.seen.figures["chunks that came meanwhile"] = sum(came or [])
    proxy.release()
    probe.await_back()
    _old_chunks(rig, probe, names)


def netem(rig: Rig) -> None:
    """Delay of 10 ms, loss of 1 % and 200 Mbit/s on the way, by the kernel (tc netem)."""
    _slow_network(rig, "netem", "delay", "10ms", "2ms", "loss", "1%", "rate", "200mbit")


def narrow_network(rig: Rig) -> None:
    """40 Mbit/s on the way, by the kernel (tc tbf): the batch cannot come before the deadline of a load."""
    _slow_network(rig, "tbf", "rate", "40mbit", "burst", "256kb", "latency", "200ms")


def wrong_password(rig: Rig) -> None:
    """Open the adapter with a password that the store does not take, then let the store take it."""
    server, names = rig.server().start(), rig.names(CHUNKS)
    probe = _opened(rig, server.port, "mistaken")
    if probe is None:
        return
    _use(rig, probe, names)
    server.ask("CONFIG", "SET", "requirepass", "mistaken")
    probe.await_back()


def one_of_four_gone(rig: Rig) -> None:
    """Stop one of four stores."""
    _one_of_four(rig, hold=False)


def one_of_four_hung(rig: Rig) -> None:
    """Hold one of four stores."""
    _one_of_four(rig, hold=True)


def _one_of_four(rig: Rig, hold: bool) -> None:
    servers = [rig.server().start() for _ in range(4)]
    names = rig.names(_FLEET_CHUNKS)
    probe = rig.open(*(server.port for server in servers))
    rig.seen.require(probe.store(names), "not all was stored before the fault")
    owners = [_owner(name, [server.port for server in servers]) for name in names]
    struck = max(range(4), key=owners.count)
    others = [name for name, owner in zip(names, owners) if owner != struck]
    rig.seen.figures["chunks on the struck store"] = owners.count(struck)
    if hold:
        servers[struck].pause()
    else:
        servers[struck].stop()
    until = time.monotonic() + _HELD_S
    while True:
        came = dict(zip(names, probe.fetch(names)))
        rig.seen.others_asked += len(others)
        rig.seen.others_hit += sum(came[name] for name in others)
        new = [f"during-{time.monotonic_ns()}"]
        probe.store(new)
        if time.monotonic() >= until:
            break
    rig.seen.require(not any(came[n] for n, owner in zip(names, owners) if owner == struck), "loaded from a gone store")
    # What is stored after the first failure goes to those that are there.
    rig.seen.require(probe.store(new) and probe.fetch(new) == [True], "the others took nothing new")
    if hold:
        servers[struck].resume()
    else:
        servers[struck].start()
    lost = [name for name, owner in zip(names, owners) if owner == struck]
    began = time.monotonic()
    rig.seen.watched_s = 15.0
    while time.monotonic() - began < rig.seen.watched_s:
        if all(probe.fetch(lost)):
            rig.seen.back_s = time.monotonic() - began
            break
        time.sleep(0.02)


def _owner(name: str, ports: Sequence[int]) -> int:
    from kvstrata.bench.l2_driver import make_key
    from kvstrata.l2.adapter import identity_of

    cid = chunk_id(identity_of(make_key(name)))
    return ranking(cid, [seed(f"127.0.0.1:{port}") for port in ports])[0]


def _slow_network(rig: Rig, *discipline: str) -> None:
    isolate.private_network()
    # Refused here where the kernel lacks it, before anything was measured.
    isolate.slow_loopback(*discipline)
    isolate.quick_loopback()
    server, names = rig.server().start(), rig.names(CHUNKS)
    probe = _filled(rig, server.port, names)
    isolate.slow_loopback(*discipline)
    came = rig.endures(lambda: probe.fetch(names))
    rig.seen.figures["chunks that came meanwhile"] = sum(came or [])
    rig.endures(lambda: probe.store(rig.names(CHUNKS, "slow")))
    isolate.quick_loopback()
    probe.await_back()
    _old_chunks(rig, probe, names)


def _opened(rig: Rig, port: int, password: str) -> Probe | None:
    """Return an adapter that may have reason not to start; None where it cannot be made, so that LMCache would not."""
    began = time.monotonic()
    try:
        return rig.open(port, password=password)
    except Exception as error:
        rig.seen.operation("start", time.monotonic() - began, None)
        rig.seen.require(
            False, f"the adapter cannot be made, nor LMCache start: {type(error).__name__} {error}".strip()
        )
        return None


def _filled(rig: Rig, port: int, names: Sequence[str]) -> Probe:
    """Return an adapter that has stored these chunks, and has found them again."""
    probe = rig.open(port)
    rig.seen.require(probe.store(names), "not all was stored before the fault")
    rig.seen.require(all(probe.fetch(names)), "not all was loaded before the fault")
    return probe


def _use(rig: Rig, probe: Probe, names: Sequence[str]) -> None:
    """Use the adapter while no store answers: two rounds, the second after it had time to learn of the fault."""
    for number in range(2):
        came = rig.endures(lambda: probe.fetch(names))
        rig.seen.require(not any(came or []), "loaded from a store that does not answer")
        if came is None:
            return
        group = f"meanwhile{number}"
        stored = rig.endures(lambda: probe.store(rig.names(2, group)))  # noqa: B023 - called at once
        rig.seen.require(not stored, "reported as stored while no store answered")
        if stored is None:
            return


def _only(rig: Rig, came: Sequence[bool] | None, names: Sequence[str], spared: Sequence[str]) -> None:
    """Require that exactly the spared chunks came."""
    if came is None:
        return
    hits = {name for name, hit in zip(names, came) if hit}
    rig.seen.figures["spared chunks that came"] = len(hits & set(spared))
    rig.seen.require(
        hits >= set(spared), f"{len(set(spared) - hits)} of {len(spared)} chunks without a fault were lost"
    )
    rig.seen.require(hits <= set(spared), "a chunk with a fault was taken for good")


def _old_chunks(rig: Rig, probe: Probe, names: Sequence[str]) -> None:
    """Note how many chunks from before the fault are still served."""
    if rig.seen.back_s is None:
        return
    came = rig.endures(lambda: probe.fetch(names))
    rig.seen.figures["old chunks served again"] = sum(came or [])
    rig.seen.require(came is not None and all(came), f"{len(names) - sum(came or [])} chunks from before were lost")


_FLEET = "knows one store only"

CASES: tuple[Case, ...] = (
    Case("restarted", "store restarted (SIGTERM)", restarted),
    Case("restarted_default", "the same, default deadlines", restarted, default_deadlines=True),
    Case("started_late", "store started after the adapter", started_late),
    Case("hung", "store held (SIGSTOP) between lookup and load", hung),
    Case("hung_default", "the same, default deadlines", hung, default_deadlines=True),
    Case("full", "store full (max-db-size, maxmemory)", full),
    Case("full_filesystem", "filesystem full (ENOSPC)", full_filesystem),
    Case("other_size", "value of another size", other_size),
    Case("vanished", "chunk deleted between lookup and load", vanished),
    Case("cut_loading", "connection cut in a value being loaded", cut_loading),
    Case("cut_storing", "connection cut in a value being stored", cut_storing),
    Case("cut_answer", "connection cut before a store is answered", cut_answer),
    Case("held_loading", "value stops coming, connection open", held_loading),
    Case("delayed", "replies delayed by 20 ms each 64 KiB", delayed),
    Case("netem", "slow network: delay, loss (tc netem)", netem),
    Case("narrow_network", "slow network: 40 Mbit/s (tc tbf)", narrow_network),
    Case("wrong_password", "wrong password", wrong_password),
    Case("one_of_four_gone", "one of four stores stopped", one_of_four_gone, ours_only=_FLEET),
    Case("one_of_four_hung", "one of four stores held", one_of_four_hung, ours_only=_FLEET),
    Case("corrupted", "one bit of a chunk turned", corrupted),
    Case("client_killed", "LMCache killed -9 while storing", client_killed),
    Case("store_killed", "store killed -9", store_killed),
)
