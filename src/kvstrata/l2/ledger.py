"""How much an endpoint holds, as its own index says, and whether more fits."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from kvstrata.l2.names import IndexName
from kvstrata.l2.wire import command

MANIFEST_BYTES = 1024
"""What a chunk counts on the endpoint that holds its manifest and none of its pieces: far more than it takes."""


class Ledger:
    """The indexes of one endpoint and what they add up to; safe for many threads.

    `used_bytes` is None until the store was asked. Between two looks it goes up with what this process stores.
    """

    def __init__(self, capacity_bytes: int) -> None:
        """Start not knowing."""
        self.capacity_bytes = capacity_bytes
        self._lock = threading.Lock()
        self._indexes: tuple[IndexName, ...] = ()
        self.used_bytes: int | None = None
        self.by_namespace: dict[str, int] = {}
        """Bytes by namespace at the last look."""
        self.chunks = 0
        """Chunks at the last look."""

    @property
    def indexes(self) -> tuple[IndexName, ...]:
        """The indexes that are known, in a fixed order."""
        return self._indexes

    def learn(self, names: Sequence[IndexName]) -> None:
        """Take these as the indexes of the endpoint."""
        with self._lock:
            self._indexes = tuple(sorted(set(names)))

    def expect(self, name: IndexName) -> None:
        """Add an index that is about to get an entry."""
        if name not in self._indexes:
            with self._lock:
                self._indexes = tuple(sorted({*self._indexes, name}))

    def questions(self) -> tuple[tuple[IndexName, ...], list[bytes]]:
        """Return the indexes and the commands whose replies `count` takes."""
        indexes = self._indexes
        return indexes, [command(b"ZCARD", name.key) for name in indexes]

    def count(self, indexes: Sequence[IndexName], replies: Sequence[object]) -> int:
        """Take the replies to `questions`; return the bytes in use."""
        cards = [reply if isinstance(reply, int) else 0 for reply in replies]
        spaces: dict[str, int] = {}
        for name, card in zip(indexes, cards):
            spaces[name.namespace] = spaces.get(name.namespace, 0) + card * name.stored_bytes
        with self._lock:
            self.by_namespace = {namespace: used for namespace, used in spaces.items() if used}
            self.chunks = sum(cards)
            self.used_bytes = used = sum(spaces.values())
        return used

    @property
    def fill(self) -> float:
        """Share of the capacity in use; 0 while unknown."""
        return (self.used_bytes or 0) / self.capacity_bytes if self.capacity_bytes else 0.0
