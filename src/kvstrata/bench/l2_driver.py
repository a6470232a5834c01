"""Drive any of LMCache's L2 adapters as LMCache does: submit, await the event fd, fetch the result.

For the benchmark and the fault matrix, which put `kvstrata.l2` beside LMCache's own `resp` and `valkey`. Runs in the
nodes' virtual environment (LMCache, torch; Python 3.10+), not in the controller's.
"""

from __future__ import annotations

import hashlib
import select
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lmcache.v1.distributed.api import ObjectKey
from lmcache.v1.distributed.l2_adapters import create_l2_adapter
from lmcache.v1.distributed.l2_adapters.base import L2AdapterInterface
from lmcache.v1.distributed.l2_adapters.config import get_l2_adapter_config_class
from lmcache.v1.memory_management import MemoryObj, MemoryObjMetadata, TensorMemoryObj
from lmcache.v1.platform import consume_fd

ADAPTERS = ("kvstrata", "resp", "valkey")


class NeverAnsweredError(RuntimeError):
    """An operation did not end within the time that was allowed for it."""


@dataclass(frozen=True)
class Store:
    """Where a store listens, for each adapter to be told in its own way."""

    host: str
    port: int
    password: str
    capacity_bytes: int = 1 << 40
    unix: str = ""
    """Path of its unix socket; kvstrata alone takes it."""


def make_adapter(kind: str, stores: Sequence[Store], timeout_s: float = 5.0, **fields: Any) -> L2AdapterInterface:
    """Return an adapter over the stores; `resp` and `valkey` know one only, and take the first.

    `fields` go to kvstrata's TierConfig.
    """
    first = stores[0]
    if kind == "kvstrata":
        endpoints = [
            {
                "host": s.host,
                "port": s.port,
                "password": s.password,
                "capacity_bytes": s.capacity_bytes,
                "unix": s.unix,
                "node": "here",
            }
            for s in stores
        ]
        params = {"endpoints": endpoints, "namespace": "kvs-bench", "local_node": "here", **fields}
        spec: dict[str, Any] = {
            "type": "plugin",
            "module_path": "kvstrata.l2.adapter",
            "class_name": "KvstrataL2Adapter",
            "adapter_params": params,
        }
    elif kind == "resp":
        spec = {"type": "resp", "host": first.host, "port": first.port, "username": "", "password": first.password}
    elif kind == "valkey":
        # LMCache 0.5.6 hands user and password to glide in the wrong order.
        spec = {
            "type": "valkey",
            "startup_nodes": f"{first.host}:{first.port}",
            "username": first.password,
            "password": "default" if first.password else "",
            "request_timeout": timeout_s,
            "connection_timeout": timeout_s,
        }
    else:
        raise ValueError(f"adapter is {kind!r}; allowed: {', '.join(ADAPTERS)}")
    return create_l2_adapter(get_l2_adapter_config_class(spec["type"]).from_dict(spec))


def make_key(name: str, model: str = "bench/model") -> ObjectKey:
    """Return the key of a chunk by a name of the caller's."""
    return ObjectKey(hashlib.sha256(name.encode()).digest(), model, ObjectKey.ComputeKVRank(1, 0, 1, 0))


def make_buffer(size: int, seed: int | None = None) -> MemoryObj:
    """Return one of LMCache's memory objects, of random bytes, or of touched zeros without a seed."""
    if seed is None:
        data = torch.zeros(size, dtype=torch.uint8)
        data.fill_(0)
    else:
        data = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8))
    meta = MemoryObjMetadata(
        shape=torch.Size([size]), dtype=torch.uint8, address=data.data_ptr(), phy_size=size, ref_count=1
    )
    return TensorMemoryObj(data, meta, None)


def same(left: MemoryObj, right: MemoryObj) -> bool:
    """Tell whether two memory objects hold the same bytes."""
    return bool(torch.equal(left.raw_data, right.raw_data))


class Driver:
    """Synchronous calls over an adapter. Every one raises NeverAnsweredError after `patience_s` seconds."""

    def __init__(self, adapter: L2AdapterInterface, patience_s: float = 60.0) -> None:
        """Drive `adapter`."""
        self.adapter = adapter
        self.patience_s = patience_s

    def store(self, keys: Sequence[ObjectKey], buffers: Sequence[MemoryObj]) -> bool:
        """Store; return what LMCache would be told."""
        task = self.adapter.submit_store_task(list(keys), list(buffers))
        done: dict[int, Any] = {}

        def popped() -> bool | None:
            done.update(self.adapter.pop_completed_store_tasks())
            return bool(done[task].is_successful()) if task in done else None

        return bool(self._await(self.adapter.get_store_event_fd(), popped))

    def lookup(self, keys: Sequence[ObjectKey]) -> list[bool]:
        """Look up and lock; return a flag for each key."""
        task = self.adapter.submit_lookup_and_lock_task(list(keys), {})
        fd = self.adapter.get_lookup_and_lock_event_fd()
        bitmap = self._await(fd, lambda: self.adapter.query_lookup_and_lock_result(task))
        return [bitmap.test(i) for i in range(len(keys))]

    def load(self, keys: Sequence[ObjectKey], buffers: Sequence[MemoryObj]) -> list[bool]:
        """Load; return a flag for each key."""
        task = self.adapter.submit_load_task(list(keys), list(buffers))
        bitmap = self._await(self.adapter.get_load_event_fd(), lambda: self.adapter.query_load_result(task))
        return [bitmap.test(i) for i in range(len(keys))]

    def unlock(self, keys: Sequence[ObjectKey]) -> None:
        """Release what `lookup` locked."""
        self.adapter.submit_unlock(list(keys))

    def _await(self, fd: int, result: Any) -> Any:
        until = time.monotonic() + self.patience_s
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        while True:
            value = result()
            if value is not None:
                return value
            left = until - time.monotonic()
            if left <= 0:
                raise NeverAnsweredError(f"no answer within {self.patience_s:g} s")
            if poller.poll(left * 1000):
                consume_fd(fd)
