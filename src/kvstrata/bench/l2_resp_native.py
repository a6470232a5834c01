"""LMCache's own C++ client of the adapter `resp` (the module `lmcache_redis`) without LMCache around it.

For a host that has no LMCache but can load that one module: what is measured is the adapter's work without its
bookkeeping, so it can only look better than it is in service.
"""

from __future__ import annotations

import importlib
import select
import time
from collections.abc import Mapping, Sequence
from typing import Any

from kvstrata.bench.l2_clients import Bytearrays

WORKERS = 8
"""LMCache's default."""


class RespNativeClient(Bytearrays):
    """A benchmark client (l2_clients.Client) over `LMCacheRedisClient`."""

    def __init__(self, endpoints: Sequence[Mapping[str, Any]], patience_s: float) -> None:
        """Prepare; connects with `open`. It knows one store, and takes the first."""
        self._endpoint = endpoints[0]
        self._patience_s = patience_s
        self._client: Any = None

    def open(self) -> None:
        """Connect."""
        importlib.import_module("torch")  # the module finds torch's libraries only in a process that loaded them
        module = importlib.import_module("lmcache_redis")
        self._client = module.LMCacheRedisClient(self._endpoint["host"], self._endpoint["port"], WORKERS, "", "")

    def close(self) -> None:
        """Disconnect."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def store(self, numbers: Sequence[int], buffers: Sequence[Any]) -> bool:
        """SET each chunk as one value."""
        return bool(self._await(self._client.submit_batch_set(keys(numbers), views(buffers)))[0])

    def lookup(self, numbers: Sequence[int]) -> list[bool]:
        """EXISTS for each chunk."""
        ok, found = self._await(self._client.submit_batch_exists(keys(numbers)))
        return [bool(flag) for flag in found or ()] if ok else [False] * len(numbers)

    def unlock(self, numbers: Sequence[int]) -> None:
        """Do nothing: the locks of `resp` are LMCache's own."""

    def load(self, numbers: Sequence[int], buffers: Sequence[Any]) -> list[bool]:
        """GET each chunk."""
        ok, loaded = self._await(self._client.submit_batch_get(keys(numbers), views(buffers)))
        return [bool(flag) for flag in loaded] if loaded else [bool(ok)] * len(numbers)

    def stages(self) -> dict[str, tuple[int, float]]:
        """Return nothing: it does not tell."""
        return {}

    def _await(self, future: Any) -> tuple[bool, Sequence[bool] | None]:
        until = time.monotonic() + self._patience_s
        poller = select.poll()
        poller.register(int(self._client.event_fd()), select.POLLIN)
        while (left := until - time.monotonic()) > 0:
            if poller.poll(left * 1000):
                for number, ok, _error, flags in self._client.drain_completions():
                    if int(number) == int(future):
                        return bool(ok), flags
        raise TimeoutError(f"no answer within {self._patience_s:g} s")


def keys(numbers: Sequence[int]) -> list[str]:
    """Return the names of chunks."""
    return [f"bench/{number}" for number in numbers]


def views(buffers: Sequence[Any]) -> list[memoryview]:
    """Return the bytes of buffers, in place."""
    return [memoryview(buffer) for buffer in buffers]
