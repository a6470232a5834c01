"""Fill a store with many chunks, have a Tier measured over it, and judge what that took."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvstrata.bench.errors import BenchError
from kvstrata.bench.keys_fill import CHUNK_BYTES, fill
from kvstrata.bench.l2_stores import Stores

SCHEMA = "kvstrata.bench.keys/1"
WIDTHS = (1, 32, 128)
RSS_GROWTH_LIMIT = 64 << 20
"""What the adapter may take beyond its start, whatever the stores hold: threads, buffers, pending access times."""
_SOURCES = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Plan:
    """What to fill, and what to ask then."""

    store: str
    binary: Path
    folder: Path
    keys: int
    evict: int
    samples: int = 300
    seed: int = 1
    seconds: float = 900.0
    """Most that the measurement, without the filling, may take."""


def run(plan: Plan, progress: Callable[[str], None]) -> dict[str, Any]:
    """Return what was measured of one store, with `checks`: what must hold, and whether it does.

    Raises:
        BenchError: the store or the measurement failed.
    """
    place = Path(tempfile.mkdtemp(prefix="kvstrata-bench-keys-", dir=plan.folder))
    stores = Stores(plan.store, plan.binary, place, 1, unix=False)
    try:
        stores.start()
        where = stores.endpoints()[0]
        address = {"host": where["host"], "port": where["port"]}
        fill_s = fill(address["host"], address["port"], plan.keys)
        progress(f"{plan.store}: {plan.keys} chunks written in {fill_s:.0f} s")
        if stores.persistent:
            # What a store is like that was started again: nothing in its memory, nothing in the page cache.
            stores.rest()
            stores.start()
            stores.drop_cache()
        before = stores.reading()
        job = {
            **address,
            "keys": plan.keys,
            "evict": plan.evict,
            "widths": WIDTHS,
            "samples": plan.samples,
            "seed": plan.seed,
        }
        found = _worker(job, plan.seconds)
        used = stores.reading() - before
        found |= {"store": plan.store, "keys": plan.keys, "chunk_bytes": CHUNK_BYTES, "fill_s": fill_s}
        found["store_cpu_s"] = used.usage.cpu_s
        found["checks"] = checks(found, plan.evict)
        return found
    except OSError as error:
        raise BenchError(f"{plan.store}: {error}") from error
    finally:
        stores.kill()
        shutil.rmtree(place, ignore_errors=True)


def checks(found: dict[str, Any], evict: int) -> dict[str, bool]:
    """Return what must hold, in words, and whether it does."""
    keys, chunk = found["keys"], found["chunk_bytes"]
    lookups = found["lookups"]
    growth = max(value for name, value in found.items() if name.startswith("rss_after")) - found["rss_before_bytes"]
    return {
        "usage is known after a restart, to the byte": found["usage_then_bytes"] == keys * chunk,
        "every chunk looked up is found, and none that is not there": all(
            each["found"] == (each["samples"] * each["width"] if each["hits"] else 0) for each in lookups
        ),
        "lookups and evictions go through no key they did not ask for": not found["scans_in_lookups"]
        and not found["scans_in_eviction"],
        "the walk sees every chunk and changes none": found["walk_seen"] >= keys and not found["walk_changed"],
        "exactly as many are evicted as are too many": found["evicted_chunks"] == evict,
        "usage is right after the eviction, to the byte": found["used_after_bytes"]
        == found["left_chunks"] * chunk
        == (keys - evict) * chunk,
        "the least recently used are evicted first": found["oldest_left_as_expected"],
        f"the adapter grows by less than {RSS_GROWTH_LIMIT >> 20} MiB": growth < RSS_GROWTH_LIMIT,
    }


def table(runs: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return headers and lines: a column for each store."""
    lines: list[list[str]] = []

    def line(name: str, show: Callable[[dict[str, Any]], str]) -> None:
        lines.append([name, *(show(found) for found in runs)])

    line("chunks", lambda f: f"{f['keys']:,}")
    line("filled in", lambda f: f"{f['fill_s']:.0f} s")
    for number, each in enumerate(runs[0]["lookups"]):
        kind = "hits" if each["hits"] else "misses"
        line(f"lookup of {each['width']}, {kind}: P50 / P95 / P99 ms", lambda f, n=number: _times(f["lookups"][n]))  # type: ignore[misc]
    line("usage known after a restart of the adapter", lambda f: f"{f['usage_known_after_s']:.2f} s")
    line(
        "tick of the keeper, nothing to do: P50 / P99 ms", lambda f: f"{f['tick_p50_ms']:.2f} / {f['tick_p99_ms']:.2f}"
    )
    line("tick that writes the access times of all lookups", lambda f: f"{f['stamps_tick_ms']:.0f} ms")
    line("walk over all chunks: s (CPU s of the adapter)", lambda f: f"{f['walk_s']:.1f} ({f['walk_cpu_s']:.1f})")
    line("longest tick of the walk", lambda f: f"{f['walk_longest_tick_ms']:.0f} ms")
    line("evicted", lambda f: f"{f['evicted_chunks']:,} in {f['evict_s']:.2f} s, {f['evict_ticks']} ticks")
    line("eviction of one chunk", lambda f: f"{f['evict_ms_per_chunk']:.3f} ms")
    line(
        "memory of the adapter at its start / after lookups / walk / eviction, MiB",
        lambda f: " / ".join(
            f"{f[name] / (1 << 20):.0f}"
            for name in ("rss_before_bytes", "rss_after_lookups_bytes", "rss_after_walk_bytes", "rss_after_bytes")
        ),
    )
    for what in runs[0]["checks"]:
        line(what, lambda f, w=what: "yes" if f["checks"][w] else "NO")  # type: ignore[misc]
    return ["", *(f"{found['store']}" for found in runs)], lines


def _times(each: dict[str, Any]) -> str:
    return " / ".join(f"{each[f'p{share}_ms']:.2f}" for share in (50, 95, 99))


def _worker(job: dict[str, Any], seconds: float) -> dict[str, Any]:
    path = os.pathsep.join(filter(None, (str(_SOURCES), os.environ.get("PYTHONPATH"))))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "kvstrata.bench.keys_worker"],
            input=json.dumps(job),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            env={**os.environ, "PYTHONPATH": path},
        )
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"the measurement did not end within {seconds:.0f} s") from error
    if done.returncode != 0:
        raise BenchError(f"the measurement failed: {done.stderr.strip().splitlines()[-1:]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result
