"""Put the index of an endpoint right after a crash: every chunk that takes space is in it.

Kvrocks without WAL flushes its column families independently, so a kill leaves them in states of different times.

1. An index itself: its members, their order by score and their number lie in three of them. A member that is there,
   but in no order, can never be added again, counted or evicted. So each index is compared with itself, and rebuilt
   from its order where it contradicts itself.
2. A chunk whose index entry was lost: it would be read, but never counted and never evicted. A walk over all chunks, a
   slice at each tick, finds them.

The other way round needs nothing: an entry without a chunk is evicted in its turn.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress

from kvstrata.l2.layout import ForeignError, LayoutError, Manifest
from kvstrata.l2.ledger import MANIFEST_BYTES
from kvstrata.l2.names import CHUNK_PREFIX, INDEX_REGISTRY, MANIFEST_FIELD, IndexName, parse_chunk_key
from kvstrata.l2.wire import Connection, ReplyError, WireError, command

_BATCH = 500
_MEMBERS = 5000
# For a command that goes over a whole index: about 2 us for each entry.
_WHOLE_INDEX_S = 60.0


class Reconciler:
    """One walk over the chunks of an endpoint."""

    def __init__(self, endpoint_id: int) -> None:
        """`endpoint_id` (placement.endpoint_id) tells which pieces of a chunk are here."""
        self._endpoint_id = endpoint_id
        self._cursor = b"0"
        self._held: list[bytes] = []
        self.done = False
        self._compared = False
        self.seen = self.adopted = self.dropped = self.rebuilt = 0

    def step(self, connection: Connection, budget_s: float) -> None:
        """Walk on for about `budget_s` seconds; raises WireError or ReplyError."""
        if not self._compared:
            for name in IndexName.parse_all(connection.call(b"SMEMBERS", INDEX_REGISTRY)):
                # A key of another type is no index of ours, and no reason to give up the others.
                deadline, stall_s = connection.deadline, connection.stall_s
                connection.deadline, connection.stall_s = time.monotonic() + _WHOLE_INDEX_S, _WHOLE_INDEX_S
                with suppress(ReplyError):
                    self._compare(connection, name)
                connection.deadline, connection.stall_s = deadline, stall_s
            self._compared = True
        until = time.monotonic() + budget_s
        while not self.done and time.monotonic() < until:
            pattern = CHUNK_PREFIX + b"*"
            reply = connection.call(b"SCAN", self._cursor, b"MATCH", pattern, b"COUNT", _BATCH)
            if not isinstance(reply, list) or len(reply) != 2 or not isinstance(reply[1], list):
                raise WireError(f"SCAN answered {str(reply)[:64]}")
            cursor = reply[0] if isinstance(reply[0], bytes) else b"0"
            keys = [key for key in reply[1] if isinstance(key, bytes) and parse_chunk_key(key)]
            # After the scan: whoever writes a chunk has registered its index before the first piece.
            registry = connection.call(b"SMEMBERS", INDEX_REGISTRY)
            # One batch late: Kvrocks' cursor is the last key it named, and it passes over the next one if that is gone.
            due = self._held + keys if cursor == b"0" else self._held
            self._judge(connection, due, IndexName.parse_all(registry))
            self._held, self._cursor, self.done = keys, cursor, cursor == b"0"
            self.seen += len(keys)

    def _compare(self, connection: Connection, name: IndexName) -> None:
        """Rebuild an index whose members, order and number do not agree; what others add meanwhile is no discord."""
        before = _count(connection.call(b"ZCARD", name.key))
        members, cursor = 0, b"0"
        while True:
            page = connection.call(b"ZSCAN", name.key, cursor, b"COUNT", _MEMBERS)
            if not isinstance(page, list) or len(page) != 2 or not isinstance(page[1], list):
                raise WireError(f"ZSCAN answered {str(page)[:64]}")
            members += len(page[1]) // 2
            cursor = page[0] if isinstance(page[0], bytes) else b"0"
            if cursor == b"0":
                break
        ordered = _count(connection.call(b"ZCOUNT", name.key, b"-inf", b"+inf"))
        low, high = sorted((before, _count(connection.call(b"ZCARD", name.key))))
        if not low <= members <= high or not low <= ordered <= high:
            # In one step, by the server itself, into a new version of the key: the old members are gone with the old.
            connection.call(b"ZUNIONSTORE", name.key, 1, name.key)
            self.rebuilt += 1

    def _judge(self, connection: Connection, keys: Sequence[bytes], indexes: Sequence[IndexName]) -> None:
        # Nearly all are in the index, which one question for all of them tells; the others are looked at one by one.
        for key in _without_entry(connection, keys, indexes):
            (data,) = connection.pipeline([command(b"HGET", key, MANIFEST_FIELD)])
            if not _without_entry(connection, [key], indexes):
                continue
            namespace, cid = parse_chunk_key(key) or ("", b"")
            try:
                manifest = Manifest.decode(data if isinstance(data, bytes) else b"")
            except ForeignError:
                continue
            except LayoutError:
                # Neither counted nor whole: nobody is writing it, for the entry comes before the first piece.
                connection.call(b"UNLINK", key)
                self.dropped += 1
                continue
            name = IndexName(namespace, stored_bytes(manifest, self._endpoint_id))
            connection.call(b"SADD", INDEX_REGISTRY, name.registered)
            # As old as can be: what a crash left unaccounted goes first, unless it is used.
            connection.call(b"ZADD", name.key, b"NX", b"0", cid)
            self.adopted += 1


def _without_entry(connection: Connection, keys: Sequence[bytes], indexes: Sequence[IndexName]) -> list[bytes]:
    """Return those of the chunks that no index of their namespace has."""
    owners: list[bytes] = []
    questions: list[bytes] = []
    for key in keys:
        namespace, cid = parse_chunk_key(key) or ("", b"")
        for name in indexes:
            if name.namespace == namespace:
                owners.append(key)
                questions.append(command(b"ZSCORE", name.key, cid))
    scores = connection.pipeline(questions)
    found = {owner for owner, score in zip(owners, scores) if score is not None}
    return [key for key in keys if key not in found]


def _count(reply: object) -> int:
    return reply if isinstance(reply, int) else 0


def stored_bytes(manifest: Manifest, endpoint_id: int) -> int:
    """Return what a chunk counts on an endpoint: its pieces there, or the manifest's share where there are none."""
    here = [i for i in range(len(manifest.checksums)) if manifest.place(i) == endpoint_id]
    return sum(s.stop - s.start for s in map(manifest.piece, here)) or MANIFEST_BYTES
