"""The process that `bench keys` measures: a Tier over one store that holds many chunks. One JSON object in, one out.

A process of its own, so that the memory it takes is the adapter's.
"""

from __future__ import annotations

import json
import math
import random
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kvstrata.bench.keys_fill import CHUNK_BYTES, NAMESPACE, identity
from kvstrata.bench.statistics import percentile
from kvstrata.l2.config import EndpointConfig, TierConfig
from kvstrata.l2.keeper import fields_of
from kvstrata.l2.names import IndexName
from kvstrata.l2.tier import Tier
from kvstrata.l2.wire import Connection

# Nothing happens but what is asked for: the measurement itself calls the keeper.
_NEVER_S = 3600.0
_PATIENCE_S = 30.0
_POLL_S = 0.001
_TICK_S = 1.0
_EVICT_TO = 0.9


def measure(
    host: str, port: int, keys: int, evict: int, widths: Sequence[int], samples: int, seed: int
) -> dict[str, Any]:
    """Return everything about a store that holds chunks 0 to `keys`; `evict` of them are gone afterwards."""
    admin = Connection((host, port), _PATIENCE_S, _PATIENCE_S)
    try:
        result: dict[str, Any] = {"rss_before_bytes": rss_bytes()}
        result |= _restart(host, port)
        # Between the two lies what `evict` chunks are of all.
        shares = {"evict_from": _EVICT_TO * (1 + 0.5 * evict / keys), "evict_to": _EVICT_TO, "compact_share": 1.0}
        tier = Tier(_config(host, port, 2 * keys * CHUNK_BYTES, tick_s=_NEVER_S, **shares))
        try:
            scans = _scans(admin)
            result["lookups"] = [
                _lookups(tier, keys, width, samples, seed, hits) for width in widths for hits in (True, False)
            ]
            result["scans_in_lookups"] = _scans(admin) - scans
            result["rss_after_lookups_bytes"] = rss_bytes()
            result |= _stamps(tier)
            result |= _walk(tier)
            result |= _ticks(tier)
            result["used_bytes"] = tier.used_bytes
            result["rss_after_walk_bytes"] = rss_bytes()
            result |= _evict(tier, keys, evict, admin)
            result["rss_after_bytes"] = rss_bytes()
            return result
        finally:
            tier.close()
    finally:
        admin.close()


def rss_bytes() -> int:
    """Return the resident memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS:"))


def _config(host: str, port: int, capacity: int, **fields: Any) -> TierConfig:
    endpoint = EndpointConfig(host, port, capacity, node="here")
    return TierConfig(endpoints=(endpoint,), namespace=NAMESPACE, local_node="here", **fields)


def _restart(host: str, port: int) -> dict[str, Any]:
    """Return how long a new Tier with everything at its default takes to know what the store holds."""
    began = time.monotonic()
    tier = Tier(_config(host, port, 1 << 40))
    try:
        while tier.ledgers[0].used_bytes is None and time.monotonic() < began + _PATIENCE_S:
            time.sleep(_POLL_S)
        return {"usage_known_after_s": time.monotonic() - began, "usage_then_bytes": tier.used_bytes}
    finally:
        tier.close()


def _lookups(tier: Tier, keys: int, width: int, samples: int, seed: int, hits: bool) -> dict[str, Any]:
    rng = random.Random(f"{seed}/{width}/{hits}")  # noqa: S311
    times_ms, found = [], 0
    for _ in range(samples):
        row = [identity(rng.randrange(keys) + (0 if hits else keys)) for _ in range(width)]
        began = time.monotonic()
        flags = _lookup(tier, row)
        times_ms.append((time.monotonic() - began) * 1000)
        found += sum(flags)
        tier.unlock([name for name, flag in zip(row, flags, strict=True) if flag])
    percentiles = {f"p{share}_ms": percentile(times_ms, share) for share in (50, 95, 99)}
    return {"width": width, "hits": hits, "samples": samples, "found": found, **percentiles}


def _lookup(tier: Tier, row: Sequence[bytes]) -> list[bool]:
    over = threading.Event()
    flags: list[bool] = []

    def done(found: list[list[bool]]) -> None:
        flags.extend(found[0])
        over.set()

    tier.lookup([row], done)
    if not over.wait(_PATIENCE_S):
        raise TimeoutError(f"no answer to a lookup within {_PATIENCE_S:g} s")
    return flags


def _stamps(tier: Tier) -> dict[str, Any]:
    """Return what the tick costs that writes the access times of all lookups that the adapter remembers."""
    began = time.monotonic()
    tier.keepers[0].tick()
    return {"stamps_tick_ms": (time.monotonic() - began) * 1000}


def _walk(tier: Tier) -> dict[str, Any]:
    """Await the end of the walk over all chunks that begins with each start of a store, and tick meanwhile."""
    keeper, walker = tier.keepers[0], tier.keepers[0].reconciler
    if walker is None:
        raise RuntimeError(f"no walk has begun: {keeper.endpoint.fault or keeper.endpoint.breaker.reason}")
    began, cpu_began, longest = time.monotonic(), time.process_time(), 0.0
    while not walker.done:
        # As often as in service; and a walk that its connection lost goes on with a tick.
        time.sleep(_TICK_S)
        started = time.monotonic()
        keeper.tick()
        longest = max(longest, time.monotonic() - started)
        if not tier.available or keeper.endpoint.fault:
            raise RuntimeError(f"the walk cannot go on: {keeper.endpoint.fault or keeper.endpoint.breaker.reason}")
    return {
        "walk_s": time.monotonic() - began,
        "walk_cpu_s": time.process_time() - cpu_began,
        "walk_longest_tick_ms": longest * 1000,
        "walk_seen": walker.seen,
        "walk_changed": walker.adopted + walker.dropped + walker.rebuilt,
    }


def _ticks(tier: Tier, count: int = 50) -> dict[str, Any]:
    """Return what a tick costs with nothing to do but look."""
    times_ms = []
    for _ in range(count):
        began = time.monotonic()
        tier.keepers[0].tick()
        times_ms.append((time.monotonic() - began) * 1000)
    return {"tick_p50_ms": percentile(times_ms, 50), "tick_p99_ms": percentile(times_ms, 99)}


def _evict(tier: Tier, keys: int, evict: int, admin: Connection) -> dict[str, Any]:
    """Give the store a capacity that `evict` chunks are too many for, and tick until they are gone."""
    keeper, ledger = tier.keepers[0], tier.ledgers[0]
    ledger.capacity_bytes = math.ceil((keys - evict) * CHUNK_BYTES / _EVICT_TO)
    name = IndexName(NAMESPACE, CHUNK_BYTES)
    admin.deadline = time.monotonic() + _PATIENCE_S
    expected = admin.call(b"ZRANGE", name.key, evict, evict)
    scans, ticks = _scans(admin), 0
    began, cpu_began = time.monotonic(), time.process_time()
    while ledger.fill >= tier.config.evict_from:
        before = keeper.evicted_chunks
        keeper.tick()
        ticks += 1
        if keeper.evicted_chunks == before:
            raise RuntimeError(f"a tick evicted nothing: {keeper.endpoint.fault or keeper.endpoint.breaker.reason}")
    seconds, cpu_s = time.monotonic() - began, time.process_time() - cpu_began
    admin.deadline = time.monotonic() + _PATIENCE_S
    oldest = admin.call(b"ZRANGE", name.key, 0, 0)
    return {
        "evicted_chunks": keeper.evicted_chunks,
        "evict_s": seconds,
        "evict_cpu_s": cpu_s,
        "evict_ticks": ticks,
        "evict_ms_per_chunk": seconds / keeper.evicted_chunks * 1000,
        "scans_in_eviction": _scans(admin) - scans,
        "left_chunks": admin.call(b"ZCARD", name.key),
        "oldest_left_as_expected": oldest == expected,
        "used_after_bytes": tier.used_bytes,
    }


def _scans(admin: Connection) -> int:
    """Return how often the store was asked to go through all its keys since its start."""
    admin.deadline = time.monotonic() + _PATIENCE_S
    reply = admin.call(b"INFO", b"commandstats")
    stats = fields_of(reply if isinstance(reply, bytes) else b"")
    calls = 0
    for name in ("scan", "keys"):
        fields = dict(part.split("=") for part in stats.get(f"cmdstat_{name}", "").split(",") if "=" in part)
        calls += int(fields.get("calls", 0))
    return calls


def main() -> None:
    """Read the job, print the result."""
    job = json.loads(sys.stdin.read())
    print(json.dumps(measure(**job)))


if __name__ == "__main__":
    main()
