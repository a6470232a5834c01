"""Delete one namespace from one store, so that it can be stopped anywhere and simply be run again.

The registry's entry goes last: until then the namespace is listed, and what is left of it is found. A chunk goes before
its index entry, so that nothing takes space without being counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import redis

from kvstrata.cache.survey import indexes
from kvstrata.l2.names import CHUNK_PREFIX, INDEX_REGISTRY, NAMESPACE_PREFIX, IndexName, chunk_key

PAGE = 512
"""Chunks of one command: Kvrocks 2.10.1 took 20 ms for so many (docs/cache.md), short beside a load."""
_SCAN_COUNT = 1000
# While an engine still writes into the namespace there is always something left; then it is said and not awaited.
_ROUNDS = 3
# A compaction that began before the last page was deleted passed over some of it: the next one is asked for.
_COMPACTION_S = 30.0
_COMPACTION_POLL_S = 0.2


class Compaction(StrEnum):
    """What came of asking for compaction, which gives the space back."""

    ASKED = "asked"
    BUSY = "busy"
    NOT_NEEDED = "not_needed"


@dataclass(frozen=True)
class Dropped:
    """What was deleted. `unindexed_chunks` were in no index, so that nobody knew their size."""

    chunks: int
    used_bytes: int
    unindexed_chunks: int
    left_chunks: int
    """In the index after the last look: somebody stores them just now."""
    compaction: Compaction


def drop(
    client: redis.Redis, namespace: str, note: Callable[[int, int], None], keep_description: bool = False
) -> Dropped:
    """Delete everything of `namespace` on the store behind `client`; raises what redis-py raises.

    Args:
        client: logged in.
        namespace: checked by its caller.
        note: gets the chunks and bytes of each page that was deleted.
        keep_description: of a namespace that engines use: they described it when they started, and won't again.
    """
    asked: Any = client
    chunks = used = unindexed = left = 0
    for _ in range(_ROUNDS):
        for name in indexes(asked, namespace):
            for count in _drain(asked, name):
                chunks += count
                used += count * name.stored_bytes
                note(count, count * name.stored_bytes)
        for count in _sweep(asked, namespace):
            unindexed += count
            note(count, 0)
        left = sum(_cards(asked, indexes(asked, namespace)))
        if not left:
            break
    compaction = _compact(asked)
    if not left:
        _forget(asked, namespace, keep_description)
    return Dropped(chunks, used, unindexed, left, compaction)


def _drain(client: Any, name: IndexName) -> Iterator[int]:
    """Delete the chunks of an index, oldest first; yield how many with each page."""
    page: list[bytes] = client.zrange(name.key, 0, PAGE - 1)
    while page:
        client.unlink(*(chunk_key(name.namespace, cid) for cid in page))
        pipeline = client.pipeline(transaction=False)
        pipeline.zrem(name.key, *page)
        pipeline.zrange(name.key, 0, PAGE - 1)
        removed, page = pipeline.execute()
        yield removed


def _sweep(client: Any, namespace: str) -> Iterator[int]:
    """Delete the chunks that are in no index; yield how many with each page."""
    pattern = b"%s%s:*" % (CHUNK_PREFIX, namespace.encode())
    keys: list[bytes] = []
    for key in client.scan_iter(match=pattern, count=_SCAN_COUNT):
        keys.append(key)
        if len(keys) == PAGE:
            yield client.unlink(*keys)
            keys = []
    if keys:
        yield client.unlink(*keys)


def _cards(client: Any, names: list[IndexName]) -> list[int]:
    pipeline = client.pipeline(transaction=False)
    for name in names:
        pipeline.zcard(name.key)
    cards: list[int] = pipeline.execute()
    return cards


def _compact(client: Any) -> Compaction:
    if "kvrocks_version" not in client.info("server"):
        return Compaction.NOT_NEEDED
    over = time.monotonic() + _COMPACTION_S
    while True:
        try:
            client.execute_command("COMPACT")
        except redis.ResponseError as error:
            if "in-progress" not in str(error):
                raise
        else:
            return Compaction.ASKED
        if time.monotonic() >= over:
            return Compaction.BUSY
        time.sleep(_COMPACTION_POLL_S)


def _forget(client: Any, namespace: str, keep_description: bool) -> None:
    """Take the namespace off the list, but for an index that got an entry meanwhile."""
    names = indexes(client, namespace)
    if names:
        client.srem(INDEX_REGISTRY, *(name.registered for name in names))
        busy = [name for name, card in zip(names, _cards(client, names), strict=True) if card]
        if busy:
            client.sadd(INDEX_REGISTRY, *(name.registered for name in busy))
            return
    if not keep_description:
        client.unlink(NAMESPACE_PREFIX + namespace.encode())
