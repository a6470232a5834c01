"""What one store holds, read from its index: a few commands, however many chunks there are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import redis

from kvstrata.cluster import StoreEngine
from kvstrata.l2.names import INDEX_REGISTRY, NAMESPACE_PREFIX, IndexName


@dataclass(frozen=True)
class Holding:
    """What a store holds of one namespace. Accesses are unix seconds; None where nothing says when."""

    chunks: int = 0
    used_bytes: int = 0
    oldest_access: float | None = None
    newest_access: float | None = None

    def __add__(self, other: Holding) -> Holding:
        """Return both together."""
        oldest = [when for when in (self.oldest_access, other.oldest_access) if when is not None]
        newest = [when for when in (self.newest_access, other.newest_access) if when is not None]
        return Holding(
            self.chunks + other.chunks,
            self.used_bytes + other.used_bytes,
            min(oldest, default=None),
            max(newest, default=None),
        )


@dataclass(frozen=True)
class Survey:
    """What a store said of itself."""

    engine: StoreEngine
    holdings: Mapping[str, Holding]
    """By namespace; one whose chunks are all gone may still be there."""
    identities: Mapping[str, Mapping[str, Any]]
    """What namespaces stand for, as far as this store was told."""
    files_bytes: int | None
    """What its files take; None for a store in memory."""
    files_limit_bytes: int | None
    """Where it would refuse writes; None for a store in memory or without a limit."""

    @property
    def total(self) -> Holding:
        """All namespaces together."""
        return sum(self.holdings.values(), Holding())


def take(client: redis.Redis) -> Survey:
    """Survey the store behind `client`; raises what redis-py raises."""
    asked: Any = client
    names = indexes(asked)
    namespaces = sorted({name.namespace for name in names})
    pipeline = asked.pipeline(transaction=False)
    for name in names:
        pipeline.zcard(name.key)
        # A chunk that a crash left out of the index comes back into it with score 0: unknown, and no age.
        pipeline.zrangebyscore(name.key, "(0", "+inf", start=0, num=1, withscores=True)
        pipeline.zrevrange(name.key, 0, 0, withscores=True)
    for namespace in namespaces:
        pipeline.get(NAMESPACE_PREFIX + namespace.encode())
    pipeline.info()
    replies = pipeline.execute()
    info: Mapping[str, Any] = replies.pop()
    described = replies[3 * len(names) :]
    holdings = dict.fromkeys(namespaces, Holding())
    for number, name in enumerate(names):
        card, oldest, newest = replies[3 * number : 3 * number + 3]
        holdings[name.namespace] += Holding(card, card * name.stored_bytes, _score(oldest), _score(newest))
    kvrocks = "kvrocks_version" in info
    limit = int(info.get("max_db_size", 0)) if kvrocks else 0
    return Survey(
        engine=StoreEngine.KVROCKS if kvrocks else StoreEngine.REDIS,
        holdings=holdings,
        identities={
            namespace: identity
            for namespace, text in zip(namespaces, described, strict=True)
            if (identity := _identity(text)) is not None
        },
        files_bytes=int(info.get("used_db_size", 0)) if kvrocks else None,
        files_limit_bytes=limit or None,
    )


def indexes(client: Any, namespace: str | None = None) -> list[IndexName]:
    """Return the indexes of a store, or those of one namespace, in a fixed order."""
    members = client.smembers(INDEX_REGISTRY)
    names = [name for member in members if (name := IndexName.parse(member)) is not None]
    return sorted(name for name in names if namespace in (None, name.namespace))


def _score(rows: list[tuple[bytes, float]]) -> float | None:
    return rows[0][1] if rows and rows[0][1] > 0 else None


def _identity(text: bytes | None) -> Mapping[str, Any] | None:
    try:
        found = json.loads(text or b"null")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
