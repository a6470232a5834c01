"""LMCache's L2AdapterInterface over a Tier: LMCache's keys and buffers in, task ids and event fds out.

Configured as LMCache's adapter type `plugin`:
`{"type": "plugin", "module_path": "kvstrata.l2.adapter", "class_name": "KvstrataL2Adapter", "adapter_params": {...}}`
with the fields of `TierConfig`. Needs LMCache 0.5.6; everything below it does not.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any

from lmcache.lmcache_native import Bitmap
from lmcache.v1.distributed.api import EncodedObjectKey, KeyEntry, KeyListPage, MemoryLayoutDesc, ObjectKey
from lmcache.v1.distributed.internal_api import L2StoreResult
from lmcache.v1.distributed.l2_adapters.base import AdapterUsage, L2AdapterInterface, L2TaskId
from lmcache.v1.distributed.l2_adapters.config import L2AdapterConfigBase
from lmcache.v1.memory_management import MemoryObj
from lmcache.v1.platform import create_event_notifier

from kvstrata.l2.config import TierConfig
from kvstrata.l2.listing import Listing
from kvstrata.l2.tier import Tier
from kvstrata.l2.writing import Stored


class KvstrataL2AdapterConfig(L2AdapterConfigBase):  # type: ignore[misc]  # lmcache ships no types
    """The checked configuration, in the form that LMCache asks for."""

    def __init__(self, tier: TierConfig) -> None:
        """Hold the configuration of the tier."""
        self.tier = tier

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> KvstrataL2AdapterConfig:
        """Check `adapter_params`; ValueError names the field, what was given and what is allowed."""
        return cls(TierConfig.from_dict(d))

    @classmethod
    def help(cls) -> str:
        """Say where the fields are explained."""
        return "kvstrata.l2: the fields of kvstrata.l2.config.TierConfig, explained in docs/l2.md"


class KvstrataL2Adapter(L2AdapterInterface):  # type: ignore[misc]
    """KV chunks on a fleet of Kvrocks, Redis or Valkey. See docs/l2.md."""

    def __init__(self, config: KvstrataL2AdapterConfig, l1_memory_desc: object | None = None) -> None:  # noqa: ARG002
        """Start; connects to nothing yet, so the stores may come later."""
        # No capacity for LMCache: it would evict by what this process stored, the tier goes by what the stores hold.
        super().__init__(max_capacity_bytes=0)
        self._config = config.tier
        self._store_efd = create_event_notifier()
        self._lookup_efd = create_event_notifier()
        self._load_efd = create_event_notifier()
        self._lock = threading.Lock()
        self._next_task: L2TaskId = 0
        self._stores: dict[L2TaskId, L2StoreResult] = {}
        self._lookups: dict[L2TaskId, Bitmap] = {}
        self._loads: dict[L2TaskId, Bitmap] = {}
        self._closed = False
        self._tier = Tier(config.tier, export=True)

    # -- event fds ---------------------------------------------------------------------------------

    def get_store_event_fd(self) -> int:
        """Return the fd that is signalled when a store task is done."""
        return int(self._store_efd.fileno())

    def get_lookup_and_lock_event_fd(self) -> int:
        """Return the fd that is signalled when a lookup is done."""
        return int(self._lookup_efd.fileno())

    def get_load_event_fd(self) -> int:
        """Return the fd that is signalled when a load is done."""
        return int(self._load_efd.fileno())

    # -- store -------------------------------------------------------------------------------------

    def submit_store_task(self, keys: list[ObjectKey], objects: list[MemoryObj]) -> L2TaskId:
        """Store a batch; its result is a failure when any chunk that should be written was not."""
        task, kept = self._new_task(), list(keys)

        def done(results: list[Stored]) -> None:
            stored = [(key, result.written) for key, result in zip(kept, results) if result.why == "stored"]
            written = sum(size for _, size in stored)
            if stored:
                self._notify_keys_stored([key for key, _ in stored], [size for _, size in stored])
            self._publish(
                self._stores, task, L2StoreResult(all(r.ok for r in results), written), self._store_efd.notify
            )

        self._tier.store([(identity_of(key), buffer_of(obj)) for key, obj in _pairs(keys, objects)], done)
        return task

    def pop_completed_store_tasks(self) -> dict[L2TaskId, L2StoreResult]:
        """Return the results of the store tasks done since the last call."""
        with self._lock:
            completed, self._stores = self._stores, {}
        return completed

    # -- lookup ------------------------------------------------------------------------------------

    def submit_lookup_and_lock_task(
        self,
        keys: list[ObjectKey],
        group_layout_descs: dict[int, MemoryLayoutDesc],  # noqa: ARG002 - the manifests know the sizes
    ) -> L2TaskId:
        """Find chunks and lock those found; LMCache names them prompt by prompt for each KV rank and object group."""
        task, kept = self._new_task(), list(keys)
        rows = rows_of(kept)

        def done(found: list[list[bool]]) -> None:
            flags = [flag for row in found for flag in row]
            hits = [key for key, flag in zip(kept, flags) if flag]
            if hits:
                self._notify_keys_accessed(hits)
            self._publish(self._lookups, task, _bitmap(flags), self._lookup_efd.notify)

        self._tier.lookup([[identity_of(key) for key in row] for row in rows], done)
        return task

    def query_lookup_and_lock_result(self, task_id: L2TaskId) -> Bitmap | None:
        """Return the result of a lookup once, or None while there is none."""
        with self._lock:
            return self._lookups.pop(task_id, None)

    def submit_unlock(self, keys: list[ObjectKey]) -> None:
        """Release the locks of a lookup; they are this process's own, so this cannot fail."""
        self._tier.unlock([identity_of(key) for key in keys])

    # -- load --------------------------------------------------------------------------------------

    def submit_load_task(self, keys: list[ObjectKey], objects: list[MemoryObj]) -> L2TaskId:
        """Load chunks straight into LMCache's buffers."""
        task = self._new_task()

        def done(flags: list[bool]) -> None:
            self._publish(self._loads, task, _bitmap(flags), self._load_efd.notify)

        self._tier.load([(identity_of(key), buffer_of(obj)) for key, obj in _pairs(keys, objects)], done)
        return task

    def query_load_result(self, task_id: L2TaskId) -> Bitmap | None:
        """Return the result of a load once, or None while there is none."""
        with self._lock:
            return self._loads.pop(task_id, None)

    # -- delete, list, usage -----------------------------------------------------------------------

    def delete(self, keys: list[ObjectKey]) -> None:
        """Delete chunks that are not locked; returns when that is done or its deadline is over."""
        over = threading.Event()
        gone: list[ObjectKey] = []

        def done(flags: list[bool]) -> None:
            gone.extend(key for key, flag in zip(keys, flags) if flag)
            over.set()

        self._tier.delete([identity_of(key) for key in keys], done)
        over.wait(3 * self._config.lookup_deadline_s)
        if gone:
            # Sizes are the tier's own business (get_usage): the base class's sums are not used.
            self._notify_keys_deleted(gone, [0] * len(gone))

    def list_l2_keys(self, model_name: str | None = None, page_size: int = 500, cursor: str | None = None) -> Any:
        """Return a page of the namespace's keys, as the stores have them now; see Listing for what it costs."""
        page = Listing(self._tier).page(page_size, cursor, None if model_name is None else _of_model(model_name))
        entries = []
        for identity, size in page.entries:
            key = key_of(identity)
            if key is not None:
                entries.append(KeyEntry(key=key, size_bytes=size))
        return KeyListPage(entries=tuple(entries), next_page_token=page.cursor)

    def get_usage(self) -> AdapterUsage:
        """Return what the stores hold, of all namespaces and nodes, and their capacity; not split by cache salt."""
        status = self._tier
        return AdapterUsage(
            total_bytes_used=status.used_bytes,
            total_capacity_bytes=sum(ledger.capacity_bytes for ledger in status.ledgers),
            bytes_by_cache_salt=MappingProxyType({}),
        )

    # -- life cycle --------------------------------------------------------------------------------

    def report_status(self) -> dict[str, Any]:
        """Return what is known, endpoint by endpoint, without asking any store."""
        return {"type": "kvstrata", **self._tier.status(), "is_healthy": not self._closed and self._tier.available}

    def close(self) -> None:
        """Stop; when it returns no buffer of LMCache is touched any more."""
        if self._closed:
            return
        self._closed = True
        self._tier.close()
        for notifier in (self._store_efd, self._lookup_efd, self._load_efd):
            notifier.close()

    def _new_task(self) -> L2TaskId:
        with self._lock:
            self._next_task += 1
            return self._next_task

    def _publish(self, results: dict[L2TaskId, Any], task: L2TaskId, result: Any, notify: Callable[[], None]) -> None:
        with self._lock:
            # Popping store results replaces the dictionary, so it is looked up under the lock.
            target = self._stores if isinstance(result, L2StoreResult) else results
            target[task] = result
        notify()


def identity_of(key: ObjectKey) -> bytes:
    """Return the bytes that identify a key, the same on every node: JSON of its fields, in their order."""
    return json.dumps(
        [key.model_name, key.kv_rank, key.object_group_id, key.cache_salt, base64.b85encode(key.chunk_hash).decode()],
        separators=(",", ":"),
    ).encode()


def key_of(identity: bytes) -> EncodedObjectKey | None:
    """Return the key that `identity_of` made, or None when the bytes are another program's."""
    try:
        model, rank, group, salt, digest = json.loads(identity)
        return EncodedObjectKey(
            chunk_hash_hex=base64.b85decode(digest).hex(),
            model_name=model,
            kv_rank=rank,
            object_group_id=group,
            cache_salt=salt,
        )
    except (ValueError, TypeError):
        return None


def buffer_of(obj: MemoryObj) -> memoryview:
    """Return the bytes of a memory object, in place."""
    return memoryview(obj.byte_array).cast("B")


def rows_of(keys: Sequence[ObjectKey]) -> list[list[ObjectKey]]:
    """Split the keys of a lookup into rows of one KV rank and object group, each in prefix order."""
    rows: list[list[ObjectKey]] = []
    previous: tuple[int, int] | None = None
    for key in keys:
        row = (key.kv_rank, key.object_group_id)
        if row != previous:
            rows.append([])
            previous = row
        rows[-1].append(key)
    return rows


def _of_model(model_name: str) -> Callable[[bytes], bool]:
    def matches(identity: bytes) -> bool:
        key = key_of(identity)
        return key is not None and key.model_name == model_name

    return matches


def _pairs(keys: list[ObjectKey], objects: list[MemoryObj]) -> list[tuple[ObjectKey, MemoryObj]]:
    if len(keys) != len(objects):
        raise ValueError(f"{len(keys)} keys and {len(objects)} objects; allowed: as many of one as of the other")
    return list(zip(keys, objects))


def _bitmap(flags: Sequence[bool]) -> Bitmap:
    bitmap = Bitmap(len(flags))
    for number, flag in enumerate(flags):
        if flag:
            bitmap.set(number)
    return bitmap
