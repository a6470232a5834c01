"""An adapter under test: every operation timed, every loaded byte compared."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from lmcache.v1.distributed.api import ObjectKey
from lmcache.v1.memory_management import MemoryObj

from kvstrata.bench.faults.rows import Seen
from kvstrata.bench.l2_driver import Driver, NeverAnsweredError, Store, make_adapter, make_buffer, make_key, same

MIB = 1 << 20
CHUNK_BYTES = 4 * MIB
WATCH_S = 15.0
# As many as LMCache's adapters have connections, so that one that is out of step shows.
_BACK_CHUNKS = 8
_BACK_BYTES = MIB // 2
# What an operation gets at least, when the watch is about to end.
_LEAST_S = 5.0
_POLL_S = 0.02
_KEPT = 8
T = TypeVar("T")


class HungError(RuntimeError):
    """An operation never ended; it was noted, and the case is over but for the store's return."""


class Probe:
    """One adapter over some stores; `close` it. Chunks go by names, their content follows from the name."""

    def __init__(
        self, kind: str, stores: Sequence[Store], seen: Seen, fields: Mapping[str, Any], patience_s: float
    ) -> None:
        """Make the adapter; `fields` go to kvstrata's TierConfig, whose deadlines are the ones that count."""
        self.kind = kind
        self._seen = seen
        self._patience_s = patience_s
        self._serial = itertools.count()
        self._kept: list[list[MemoryObj]] = []
        self._deadlines: dict[str, float | None] = dict.fromkeys(("store", "lookup", "load"))
        if kind == "kvstrata":
            from kvstrata.l2.config import TierConfig

            config = TierConfig.from_dict(
                {"endpoints": [vars_of(s) for s in stores], "namespace": "kvs-bench", **fields}
            )
            self._deadlines = {
                "store": config.store_deadline_s,
                "lookup": config.lookup_deadline_s,
                "load": config.load_deadline_s,
            }
        self.adapter = make_adapter(kind, stores, **(fields if kind == "kvstrata" else {}))
        self.driver = Driver(self.adapter, patience_s)

    def store(self, names: Sequence[str], size: int = CHUNK_BYTES) -> bool:
        """Store chunks; return what LMCache would be told."""
        return self._timed("store", lambda: self.driver.store(keys_of(names), [content(n, size) for n in names]))

    def lookup(self, names: Sequence[str]) -> list[bool]:
        """Look up and lock."""
        return self._timed("lookup", lambda: self.driver.lookup(keys_of(names)))

    def load(self, names: Sequence[str], size: int = CHUNK_BYTES) -> list[bool]:
        """Load into buffers full of other bytes; count every chunk that is reported as loaded and is not whole."""
        garbage = [make_buffer(size, seed=1_000_003 * next(self._serial) + 7) for _ in names]
        # An adapter that gave up, or never answers, may still write into them.
        self._kept.append(garbage)
        del self._kept[:-_KEPT]
        loaded = self._timed("load", lambda: self.driver.load(keys_of(names), garbage))
        right = [hit and same(got, content(name, size)) for name, got, hit in zip(names, garbage, loaded)]
        self._seen.wrong_chunks += sum(loaded) - sum(right)
        return right

    def unlock(self, names: Sequence[str]) -> None:
        """Release what `lookup` locked."""
        self.driver.unlock(keys_of(names))

    def fetch(self, names: Sequence[str], size: int = CHUNK_BYTES) -> list[bool]:
        """Look up, load what was found, unlock; return which chunks came, with the right bytes."""
        found = [name for name, hit in zip(names, self.lookup(names)) if hit]
        came = dict(zip(found, self.load(found, size))) if found else {}
        self.unlock(found)
        return [came.get(name, False) for name in names]

    def await_back(self, watch_s: float = WATCH_S) -> None:
        """Note how long it takes, from now on, until a batch of chunks can be stored, found and loaded, all of it."""
        began = time.monotonic()
        self._seen.watched_s = watch_s
        self._seen.back_s = None
        while (left := began + watch_s - time.monotonic()) > 0:
            names = [f"back-{number}-{time.monotonic_ns()}" for number in range(_BACK_CHUNKS)]
            self.driver.patience_s = max(left, _LEAST_S)
            try:
                if self.store(names, _BACK_BYTES) and all(self.fetch(names, _BACK_BYTES)):
                    self._seen.back_s = time.monotonic() - began
                    break
            except HungError:
                break
            time.sleep(_POLL_S)
        self.driver.patience_s = self._patience_s

    def close(self) -> None:
        """Close the adapter."""
        self.adapter.close()

    def _timed(self, kind: str, operation: Callable[[], T]) -> T:
        began = time.monotonic()
        try:
            return operation()
        except NeverAnsweredError as error:
            self._seen.hung = self._seen.hung or f"a {kind} never ended (awaited {self.driver.patience_s:.0f} s)"
            raise HungError(str(error)) from error
        finally:
            self._seen.operation(kind, time.monotonic() - began, self._deadlines[kind])


_CONTENT: dict[tuple[str, int], MemoryObj] = {}
_CONTENT_LIMIT = 64


def content(name: str, size: int = CHUNK_BYTES) -> MemoryObj:
    """Return the content of the chunk of that name: random bytes, the same each time."""
    if (name, size) not in _CONTENT:
        if len(_CONTENT) >= _CONTENT_LIMIT:
            del _CONTENT[next(iter(_CONTENT))]
        seed = int.from_bytes(hashlib.sha256(f"{name}/{size}".encode()).digest()[:8], "big")
        _CONTENT[name, size] = make_buffer(size, seed=seed)
    return _CONTENT[name, size]


def keys_of(names: Sequence[str]) -> list[ObjectKey]:
    """Return LMCache's keys of chunks by name."""
    return [make_key(name) for name in names]


def vars_of(store: Store) -> dict[str, Any]:
    """Return the endpoint of kvstrata's configuration for a store."""
    return {"host": store.host, "port": store.port, "capacity_bytes": store.capacity_bytes}
