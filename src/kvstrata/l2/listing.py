"""What is on the stores, read from them: pages of a namespace's chunks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvstrata.l2.layout import LayoutError, Manifest
from kvstrata.l2.names import INDEX_REGISTRY, MANIFEST_FIELD, IndexName, chunk_key
from kvstrata.l2.wire import Connection, ReplyError, WireError, command

if TYPE_CHECKING:
    from kvstrata.l2.tier import Tier

_STEP_DEADLINE_S = 10.0


@dataclass(frozen=True)
class Page:
    """Identities of chunks with their sizes in bytes, and where to go on (None: nowhere)."""

    entries: tuple[tuple[bytes, int], ...]
    cursor: str | None


class Listing:
    """Pages over all endpoints that answer; one that does not is passed over.

    A page costs one ZRANGE and a manifest for each of its chunks. The order is by last access: what is used or
    evicted between two pages may be seen twice or not at all.
    """

    def __init__(self, tier: Tier) -> None:
        """List the namespace of `tier`."""
        self._tier = tier

    def page(self, size: int, cursor: str | None, wanted: Callable[[bytes], bool] | None) -> Page:
        """Return up to `size` chunks for whose identity `wanted` holds.

        Raises:
            ValueError: for a page size below 1 or a cursor that is not one of ours.
        """
        if size < 1:
            raise ValueError(f"page_size is {size}; allowed: 1 or more")
        endpoint, index, rank = parse_cursor(cursor)
        found: list[tuple[bytes, int]] = []
        while endpoint < len(self._tier.endpoints):
            try:
                connection = self._tier.endpoints[endpoint].connect(time.monotonic() + _STEP_DEADLINE_S)
            except WireError:
                endpoint, index, rank = endpoint + 1, 0, 0
                continue
            try:
                while (name := self._index(connection, index)) is not None:
                    rows = self._rows(connection, name, rank, size - len(found))
                    if not rows:
                        index, rank = index + 1, 0
                        continue
                    rank += len(rows)
                    found += [row for row in rows if row is not None and (wanted is None or wanted(row[0]))]
                    if len(found) >= size:
                        return Page(tuple(found), f"{endpoint}.{index}.{rank}")
            except (WireError, ReplyError):
                self._tier.counters.add("listing_errors")
            finally:
                connection.close()
            endpoint, index, rank = endpoint + 1, 0, 0
        return Page(tuple(found), None)

    def _index(self, connection: Connection, number: int) -> IndexName | None:
        # For each step: a page of which little is wanted may need many, and an endpoint is not given up half-way.
        connection.deadline = time.monotonic() + _STEP_DEADLINE_S
        members = connection.call(b"SMEMBERS", INDEX_REGISTRY)
        names = [IndexName.parse(m) for m in members if isinstance(m, bytes)] if isinstance(members, list) else []
        ours = sorted(name for name in names if name and name.namespace == self._tier.config.namespace)
        return ours[number] if number < len(ours) else None

    def _rows(self, connection: Connection, name: IndexName, rank: int, count: int) -> list[tuple[bytes, int] | None]:
        """Return a row for each index entry; None where this endpoint holds no manifest for it."""
        cids = connection.call(b"ZRANGE", name.key, rank, rank + count - 1)
        keys = (
            [chunk_key(name.namespace, cid) for cid in cids if isinstance(cid, bytes)] if isinstance(cids, list) else []
        )
        replies = connection.pipeline([command(b"HGET", key, MANIFEST_FIELD) for key in keys])
        rows: list[tuple[bytes, int] | None] = []
        for reply in replies:
            try:
                manifest = Manifest.decode(reply if isinstance(reply, bytes) else b"")
                rows.append((manifest.identity, manifest.length))
            except LayoutError:
                rows.append(None)
        return rows


def parse_cursor(cursor: str | None) -> tuple[int, int, int]:
    """Return endpoint, index and rank of a cursor; ValueError for anything that `page` did not return."""
    parts = (cursor or "0.0.0").split(".")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise ValueError(f"cursor is {cursor!r}; allowed: one that an earlier page returned, or none")
    return int(parts[0]), int(parts[1]), int(parts[2])
