"""What keeps the stores bounded for ever: access stamps, a look at what they hold, eviction, compaction.

One thread for all endpoints. Stamps and looks are every adapter's; eviction and compaction belong to the one adapter
that holds the endpoint's lease: the one on the endpoint's own node, or any other while that one is gone.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from kvstrata.l2.ledger import Ledger
from kvstrata.l2.names import INDEX_REGISTRY, LEASE, IndexName, chunk_key
from kvstrata.l2.placement import endpoint_id
from kvstrata.l2.pool import Endpoint
from kvstrata.l2.reconcile import Reconciler
from kvstrata.l2.wire import Connection, Reply, ReplyError, WireError, command

LEASE_MS = 10_000
# How long an endpoint of another node must be without a lease before this adapter takes it.
_PATIENCE_S = 15.0
_HEADS = 128
_EVICT_BUDGET_S = 2.0
_RECONCILE_BUDGET_S = 0.2
_STAMP_LIMIT = 20_000
_REMOTE_TICKS = 10
# Kvrocks refuses writes at max-db-size; up to this share of it what lies on the drive is nobody's concern.
_PHYSICAL_SHARE = 0.95
# Longer than a tick: while the pressure lasts, each look renews it.
_PRESSURE_S = 2.5


class Keeper:
    """The upkeep of one endpoint, driven by `tick`."""

    def __init__(
        self,
        endpoint: Endpoint,
        ledger: Ledger,
        local: bool,
        evict_from: float,
        evict_to: float,
        compact_share: float,
        locked: Callable[[bytes], bool],
    ) -> None:
        """`local`: the endpoint is on this node; `locked`: whether a chunk is being loaded by this process."""
        self.endpoint = endpoint
        self.ledger = ledger
        self._local = local
        self._from = evict_from
        self._to = evict_to
        self._compact_share = compact_share
        self._locked = locked
        self._owner = f"{os.uname().nodename}:{os.getpid()}:{os.urandom(4).hex()}".encode()
        self._connection: Connection | None = None
        self._stamps: dict[tuple[IndexName, bytes], float] = {}
        self._stamp_lock = threading.Lock()
        self._without_lease_since = time.monotonic()
        self._ticks = 0
        self._churn = 0
        self._compacted_in_vain = False
        self.kvrocks: bool | None = None
        """Whether the server is Kvrocks; None before it was asked."""
        self.holds_lease = False
        self.reconciler: Reconciler | None = None
        """The walk that puts the index right; a new one begins with each run of the server."""
        self._run_id = ""
        self._closing = threading.Event()
        self._walking: threading.Thread | None = None
        self.physical_bytes = 0
        """What Kvrocks says its files take; 0 for other servers."""
        self.evicted_chunks = self.evicted_bytes = self.compactions = 0

    def touch(self, index: IndexName, cid: bytes, when: float) -> None:
        """Note an access at `when` (unix seconds); written with the next tick."""
        with self._stamp_lock:
            # Beyond the limit stamps are lost, and chunks look older than they are: the memory stays bounded.
            if len(self._stamps) < _STAMP_LIMIT or (index, cid) in self._stamps:
                self._stamps[index, cid] = when

    def tick(self) -> None:
        """Do what is due. Never raises; a failing store is left to its breaker."""
        self._ticks += 1
        if not self.endpoint.breaker.closed:
            self._drop_connection()
            return
        try:
            connection = self._connected()
            self._write_stamps(connection)
            remote = not self._local and not self.holds_lease
            if remote and self._ticks % _REMOTE_TICKS != 1 and self.ledger.fill < self._from:
                return
            before = self.ledger.used_bytes
            used = self._look(connection)
            if self._lease(connection):
                self._churn += max(0, used - (used if before is None else before))
                self._bound(connection, used)
                self._reconcile()
        except ReplyError as error:
            self.endpoint.counters.add("upkeep_errors")
            self.endpoint.fault = f"upkeep: {error}"
        except WireError as error:
            self._drop_connection()
            self.endpoint.trouble(error, "upkeep", self.endpoint.silent(error))
        except Exception as error:  # the thread keeps all other endpoints too
            self._drop_connection()
            self.endpoint.counters.add("internal_errors")
            self.endpoint.fault = repr(error)

    def close(self) -> None:
        """Write the last stamps, give the lease back, and close the connection."""
        self._closing.set()
        if self._walking is not None:
            self._walking.join(10 * self.endpoint.stall_s)
        try:
            if self.endpoint.breaker.closed:
                connection = self._connected()
                self._write_stamps(connection)
                if self.holds_lease and connection.call(b"GET", LEASE) == self._owner:
                    connection.call(b"UNLINK", LEASE)
        except (WireError, ReplyError):
            self.endpoint.counters.add("upkeep_errors")
        self._drop_connection()

    # -- connection --------------------------------------------------------------------------------

    def _connected(self) -> Connection:
        if self._connection is not None and self._connection.ready():
            self._drop_connection()
        fresh = self._connection is None
        connection = self._connection or self.endpoint.connect(time.monotonic() + self.endpoint.connect_timeout_s)
        self._connection = connection
        connection.stall_s = self.endpoint.stall_s
        connection.deadline = time.monotonic() + 10 * self.endpoint.stall_s
        if fresh:
            self._meet(connection)
        return connection

    def _meet(self, connection: Connection) -> None:
        """Learn what the server is, and whether it was started since this adapter last saw it."""
        info = fields_of(_text(connection.call(b"INFO", b"server")))
        self.kvrocks = "kvrocks_version" in info
        if (run := info.get("run_id") or info.get("process_id", "")) != self._run_id:
            self._run_id = run
            self.reconciler = Reconciler(endpoint_id(self.endpoint.name))

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # -- stamps and use ----------------------------------------------------------------------------

    def _write_stamps(self, connection: Connection) -> None:
        with self._stamp_lock:
            stamps, self._stamps = self._stamps, {}
        words: dict[IndexName, list[bytes]] = {}
        for (index, cid), when in stamps.items():
            words.setdefault(index, []).extend((b"%.3f" % when, cid))
        for index, pairs in words.items():
            for start in range(0, len(pairs), 2 * _HEADS):
                # XX: a chunk that was evicted meanwhile must not come back into the index.
                connection.pipeline([command(b"ZADD", index.key, b"XX", *pairs[start : start + 2 * _HEADS])])

    def _look(self, connection: Connection) -> int:
        self.ledger.learn(IndexName.parse_all(connection.call(b"SMEMBERS", INDEX_REGISTRY)))
        indexes, questions = self.ledger.questions()
        return self.ledger.count(indexes, connection.pipeline(questions))

    def _lease(self, connection: Connection) -> bool:
        """Take or keep the lease; return whether this adapter evicts here.

        A full store refuses the lease like every write, and needs somebody to make room all the same. Then all that
        would take it evict: at worst some chunks more than one alone would have.
        """
        now = time.monotonic()
        if self.holds_lease:
            self.holds_lease = connection.call(b"GET", LEASE) == self._owner
            if self.holds_lease:
                connection.pipeline([command(b"SET", LEASE, self._owner, b"PX", LEASE_MS)])
                return True
        if connection.call(b"GET", LEASE) is not None:
            self._without_lease_since = now
            return False
        if self._local or now - self._without_lease_since >= _PATIENCE_S:
            (reply,) = connection.pipeline([command(b"SET", LEASE, self._owner, b"NX", b"PX", LEASE_MS)])
            self.holds_lease = reply == b"OK"
            return self.holds_lease or isinstance(reply, ReplyError)
        return False

    def _reconcile(self) -> None:
        """Go on with the walk in a thread of its own: a whole index may take seconds, and the ticks must not wait."""
        walker = self.reconciler
        if walker is None or walker.done or (self._walking is not None and self._walking.is_alive()):
            return
        name = f"l2-walk-{self.endpoint.config.port}"
        self._walking = threading.Thread(target=self._walk, args=(walker,), name=name, daemon=True)
        self._walking.start()

    def _walk(self, walker: Reconciler) -> None:
        """Walk to the end, unless the store goes away; the next tick begins where this ends."""
        try:
            connection = self.endpoint.connect(time.monotonic() + self.endpoint.connect_timeout_s)
        except WireError as error:
            self.endpoint.trouble(error, "walk", self.endpoint.silent(error))
            return
        connection.stall_s = self.endpoint.stall_s
        try:
            while not walker.done and walker is self.reconciler and not self._closing.is_set():
                connection.deadline = time.monotonic() + 10 * self.endpoint.stall_s
                walker.step(connection, _RECONCILE_BUDGET_S)
                # Half of the time is left to loads and stores.
                self._closing.wait(_RECONCILE_BUDGET_S)
        except (WireError, ReplyError) as error:
            self.endpoint.counters.add("upkeep_errors")
            self.endpoint.fault = f"walk: {error}"
        finally:
            connection.close()

    # -- bounding ----------------------------------------------------------------------------------

    def _bound(self, connection: Connection, used: int) -> None:
        capacity = self.ledger.capacity_bytes
        excess = used - int(capacity * self._to) if used >= capacity * self._from else 0
        compacting = False
        if self.kvrocks:
            physical, limit, compacting = self._physical(connection)
            self.physical_bytes = physical
            over = physical - int(limit * _PHYSICAL_SHARE) if limit else 0
            if over <= 0:
                self._compacted_in_vain = False
            else:
                # Nothing may be added before the drive has room again. First what is dead already is compacted away;
                # only if that was not enough, something that lives has to go, and then it is compacted again.
                self.endpoint.refuse_writes(f"{physical} of {limit} bytes on the drive", _PRESSURE_S)
                if not compacting:
                    excess = max(excess, over) if self._compacted_in_vain else excess
                    self._compacted_in_vain = not self._compacted_in_vain
                    self._churn = max(self._churn, capacity)
        if excess > 0:
            self._churn += self._evict(connection, excess)
        if self.kvrocks and not compacting and self._churn >= capacity * self._compact_share:
            # Flushes the memtables too: what was stored until now survives a kill of a store without WAL.
            connection.call(b"COMPACT")
            self.compactions += 1
            self._churn = 0

    def _physical(self, connection: Connection) -> tuple[int, int, bool]:
        """Return what the files take, Kvrocks' limit for them (0: none), and whether it compacts just now."""
        info = fields_of(_text(connection.call(b"INFO")))
        return int(info.get("used_db_size", 0)), int(info.get("max_db_size", 0)), info.get("is_compacting") == "yes"

    def _evict(self, connection: Connection, excess: int) -> int:
        """Delete the chunks that were not used for longest until `excess` bytes are free; return the bytes freed."""
        freed = 0
        until = time.monotonic() + _EVICT_BUDGET_S
        while freed < excess and time.monotonic() < until:
            victims = self._oldest(connection, excess - freed)
            if not victims:
                break
            commands: list[bytes] = []
            for index, cid in victims:
                # The chunk first: between the two it is counted and gone, never there and not counted.
                commands += [command(b"UNLINK", chunk_key(index.namespace, cid)), command(b"ZREM", index.key, cid)]
            refused = [reply for reply in connection.pipeline(commands) if isinstance(reply, ReplyError)]
            if refused:
                raise refused[0]
            freed += sum(index.stored_bytes for index, _ in victims)
            self.evicted_chunks += len(victims)
        self.evicted_bytes += freed
        self._look(connection)
        return freed

    def _oldest(self, connection: Connection, wanted: int) -> list[tuple[IndexName, bytes]]:
        """Return the least recently used chunks of all indexes, about `wanted` bytes of them."""
        indexes = self.ledger.indexes
        replies = connection.pipeline([command(b"ZRANGE", name.key, 0, _HEADS - 1, b"WITHSCORES") for name in indexes])
        heads = {name: _scored(reply) for name, reply in zip(indexes, replies)}
        return oldest(heads, wanted, _HEADS, self._locked)


def oldest(
    heads: Mapping[IndexName, Sequence[tuple[bytes, float]]],
    wanted: int,
    limit: int,
    locked: Callable[[bytes], bool],
) -> list[tuple[IndexName, bytes]]:
    """Merge the heads of the indexes by age; return chunks for at least `wanted` bytes, oldest first.

    An index whose head is full (`limit` entries) may hold more of the age where its head ends, so nothing younger
    than that is taken from any index.
    """
    horizon = min((rows[-1][1] for rows in heads.values() if len(rows) >= limit), default=float("inf"))
    merged = sorted((score, name, cid) for name, rows in heads.items() for cid, score in rows if score <= horizon)
    chosen: list[tuple[IndexName, bytes]] = []
    for _, name, cid in merged:
        if wanted <= 0:
            break
        if not locked(cid):
            chosen.append((name, cid))
            wanted -= name.stored_bytes
    return chosen


def fields_of(info: bytes) -> dict[str, str]:
    """Return the `name:value` lines of an INFO reply."""
    lines = (line.partition(":") for line in info.decode("utf-8", "replace").splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, _, value in lines}


def _text(reply: Reply) -> bytes:
    return reply if isinstance(reply, bytes) else b""


def _scored(reply: Reply) -> list[tuple[bytes, float]]:
    if not isinstance(reply, list):
        return []
    return [
        (cid, float(score))
        for cid, score in zip(reply[::2], reply[1::2])
        if isinstance(cid, bytes) and isinstance(score, bytes)
    ]
