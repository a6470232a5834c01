"""What a store says of itself, asked for once, over one connection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kvstrata.cache import survey
from kvstrata.cluster import Store
from kvstrata.verify import resp
from kvstrata.verify.shell import Shell

TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Seen:
    """INFO, CONFIG GET * and what the cache's own indexes count, in bytes by namespace."""

    info: Mapping[str, Any]
    # Holds the password.
    config: Mapping[str, str] = field(repr=False)
    used_bytes: Mapping[str, int]

    @property
    def kvrocks(self) -> bool:
        """Whether it is Kvrocks, which reports a redis_version too, for clients that ask for one."""
        return "kvrocks_version" in self.info

    def number(self, name: str) -> float:
        """A field of INFO as a number; 0 where it is missing or none."""
        value = self.info.get(name, 0)
        return float(value) if isinstance(value, int | float) else 0.0


def look(shell: Shell, store: Store) -> Seen:
    """Ask the store through the node behind `shell`; UnmetError when it does not answer."""
    with resp.authenticated(shell, store, TIMEOUT_S) as client:
        asked: Any = client
        names = survey.indexes(asked)
        pipeline = asked.pipeline(transaction=False)
        for name in names:
            pipeline.zcard(name.key)
        pipeline.info()
        pipeline.config_get("*")
        *cards, info, config = pipeline.execute()
    used: dict[str, int] = {}
    for name, card in zip(names, cards, strict=True):
        used[name.namespace] = used.get(name.namespace, 0) + card * name.stored_bytes
    return Seen(info, {str(name).lower(): str(value) for name, value in config.items()}, used)


def rocksdb(shell: Shell, store: Store) -> Mapping[str, Any]:
    """What RocksDB in Kvrocks counts just now; UnmetError when the store does not answer."""
    with resp.authenticated(shell, store, TIMEOUT_S) as client:
        info: Mapping[str, Any] = client.info("rocksdb")
    return info
