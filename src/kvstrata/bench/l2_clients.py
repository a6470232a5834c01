"""The clients that `bench l2` compares, behind one interface: LMCache's L2 adapters, or the Tier alone.

Node side: Python 3.10+. LMCache is imported only for its adapters; the Tier needs the standard library alone.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from kvstrata.l2.config import EndpointConfig, TierConfig
from kvstrata.l2.tier import Tier
from kvstrata.l2.writing import Stored

TIER = "tier"
RESP_NATIVE = "resp-native"
NAMESPACE = "kvs-bench"
_CAPACITY = 1 << 40

T = TypeVar("T")
Stages = dict[str, tuple[int, float]]


class Client(Protocol):
    """Stores, finds and loads chunks by number; every call ends in time or raises."""

    def open(self) -> None:
        """Connect, after which the other calls work."""

    def close(self) -> None:
        """Let go of the stores."""

    def buffer(self, size: int, seed: int | None) -> Any:
        """Return a buffer that the client takes, of random bytes, or of touched zeros without a seed."""

    def view(self, buffer: Any) -> memoryview:
        """Return the bytes of a buffer, in place."""

    def same(self, left: Any, right: Any) -> bool:
        """Tell whether two buffers hold the same bytes."""

    def store(self, numbers: Sequence[int], buffers: Sequence[Any]) -> bool:
        """Store chunks; return whether all of them were."""

    def lookup(self, numbers: Sequence[int]) -> list[bool]:
        """Find and lock chunks."""

    def unlock(self, numbers: Sequence[int]) -> None:
        """Undo the locks of `lookup`."""

    def load(self, numbers: Sequence[int], buffers: Sequence[Any]) -> list[bool]:
        """Load chunks; return a flag for each."""

    def stages(self) -> Stages:
        """Return how often and how long (seconds) each stage of loading took, if the client knows."""


def make_client(
    kind: str, endpoints: Sequence[Mapping[str, Any]], fields: Mapping[str, Any], patience_s: float
) -> Client:
    """Return a client over stores, each with host, port, unix; `fields` go to the TierConfig."""
    if kind == TIER:
        return TierClient(endpoints, fields, patience_s)
    if kind == RESP_NATIVE:
        from kvstrata.bench.l2_resp_native import RespNativeClient

        return RespNativeClient(endpoints, patience_s)
    return LmcacheClient(kind, endpoints, fields, patience_s)


def identity(number: int) -> bytes:
    """Return what the Tier calls chunk `number`."""
    return b"bench/%d" % number


class Bytearrays:
    """Buffers for the clients that need no LMCache."""

    def buffer(self, size: int, seed: int | None) -> bytearray:
        """Return a bytearray."""
        # Written once: pages that the kernel has yet to provide would be timed.
        return bytearray(b"\1" * size if seed is None else random.Random(seed).randbytes(size))  # noqa: S311

    def view(self, buffer: bytearray) -> memoryview:
        """Return its view."""
        return memoryview(buffer)

    def same(self, left: bytearray, right: bytearray) -> bool:
        """Compare."""
        return left == right


class TierClient(Bytearrays):
    """The Tier without LMCache around it."""

    def __init__(self, endpoints: Sequence[Mapping[str, Any]], fields: Mapping[str, Any], patience_s: float) -> None:
        """Prepare; connects with `open`."""
        stores = tuple(EndpointConfig(**endpoint, capacity_bytes=_CAPACITY, node="here") for endpoint in endpoints)
        self._config = TierConfig(endpoints=stores, namespace=NAMESPACE, local_node="here", **fields)
        self._patience_s = patience_s
        self._opened: Tier | None = None

    @property
    def _tier(self) -> Tier:
        if self._opened is None:
            raise RuntimeError("the client is not open")
        return self._opened

    def open(self) -> None:
        """Start a Tier."""
        self._opened = Tier(self._config)

    def close(self) -> None:
        """End it."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def store(self, numbers: Sequence[int], buffers: Sequence[bytearray]) -> bool:
        """Store and wait."""
        chunks = [(identity(number), memoryview(buffer)) for number, buffer in zip(numbers, buffers, strict=True)]
        stored: list[Stored] = self._wait(lambda done: self._tier.store(chunks, done))
        return all(result.ok for result in stored)

    def lookup(self, numbers: Sequence[int]) -> list[bool]:
        """Look up and wait."""
        row = [identity(number) for number in numbers]
        found: list[list[bool]] = self._wait(lambda done: self._tier.lookup([row], done))
        return found[0]

    def unlock(self, numbers: Sequence[int]) -> None:
        """Unlock."""
        self._tier.unlock([identity(number) for number in numbers])

    def load(self, numbers: Sequence[int], buffers: Sequence[bytearray]) -> list[bool]:
        """Load and wait."""
        chunks = [(identity(number), memoryview(buffer)) for number, buffer in zip(numbers, buffers, strict=True)]
        loaded: list[bool] = self._wait(lambda done: self._tier.load(chunks, done))
        return loaded

    def stages(self) -> Stages:
        """Return the endpoints' histograms, added up."""
        return stages_of(self._tier.status())

    def _wait(self, begin: Callable[[Callable[[list[T]], None]], None]) -> list[T]:
        over = threading.Event()
        results: list[T] = []

        def done(values: list[T]) -> None:
            results.extend(values)
            over.set()

        begin(done)
        if not over.wait(self._patience_s):
            raise TimeoutError(f"no answer within {self._patience_s:g} s")
        return results


class LmcacheClient:
    """One of LMCache's adapters, ours among them, driven as LMCache does."""

    def __init__(
        self, kind: str, endpoints: Sequence[Mapping[str, Any]], fields: Mapping[str, Any], patience_s: float
    ) -> None:
        """Prepare; connects with `open`."""
        from kvstrata.bench import l2_driver

        self._lmcache = l2_driver
        self._kind = kind
        self._stores = [l2_driver.Store(password="", **endpoint) for endpoint in endpoints]
        self._fields = dict(fields) if kind == "kvstrata" else {}
        self._patience_s = patience_s
        self._driver: Any = None

    def open(self) -> None:
        """Make the adapter."""
        adapter = self._lmcache.make_adapter(self._kind, self._stores, self._patience_s, **self._fields)
        self._driver = self._lmcache.Driver(adapter, self._patience_s)

    def close(self) -> None:
        """Close the adapter."""
        if self._driver is not None:
            self._driver.adapter.close()
            self._driver = None

    def buffer(self, size: int, seed: int | None) -> Any:
        """Return one of LMCache's memory objects."""
        return self._lmcache.make_buffer(size, seed)

    def view(self, buffer: Any) -> memoryview:
        """Return its bytes."""
        return memoryview(buffer.byte_array).cast("B")

    def same(self, left: Any, right: Any) -> bool:
        """Compare."""
        return self._lmcache.same(left, right)

    def store(self, numbers: Sequence[int], buffers: Sequence[Any]) -> bool:
        """Store and wait."""
        return bool(self._driver.store(self._keys(numbers), buffers))

    def lookup(self, numbers: Sequence[int]) -> list[bool]:
        """Look up and wait."""
        return list(self._driver.lookup(self._keys(numbers)))

    def unlock(self, numbers: Sequence[int]) -> None:
        """Unlock."""
        self._driver.unlock(self._keys(numbers))

    def load(self, numbers: Sequence[int], buffers: Sequence[Any]) -> list[bool]:
        """Load and wait."""
        return list(self._driver.load(self._keys(numbers), buffers))

    def stages(self) -> Stages:
        """Return the histograms of kvstrata's adapter; the others have none."""
        return stages_of(self._driver.adapter.report_status()) if self._kind == "kvstrata" else {}

    def _keys(self, numbers: Sequence[int]) -> list[Any]:
        return [self._lmcache.make_key(str(number)) for number in numbers]


def stages_of(status: Mapping[str, Any]) -> Stages:
    """Return (count, seconds) of each stage, over all endpoints, from a Tier's status."""
    total: Stages = {}
    for endpoint in status["endpoints"].values():
        for stage, report in endpoint["latency"].items():
            count, seconds = total.get(stage, (0, 0.0))
            total[stage] = count + report["count"], seconds + report["count"] * report.get("mean_s", 0.0)
    return total
