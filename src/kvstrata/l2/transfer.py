"""The jobs that move pieces: one reads a piece, one writes the part of a chunk that belongs on one endpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kvstrata.l2.lane import Job
from kvstrata.l2.layout import Manifest, checksum_of, piece_slice
from kvstrata.l2.ledger import Ledger
from kvstrata.l2.names import INDEX_REGISTRY, IndexName, chunk_key, piece_field
from kvstrata.l2.pool import Endpoint
from kvstrata.l2.wire import Connection, ReplyError, command, command_with

AGE_STEP_S = 0.001
"""By how much each further chunk of a prompt counts as older: its tail is evicted before its head, for without the
head the tail is of no use."""

_YIELD_S = 0.02
_REFUSED_FOR_S = 2.0
# Commands under way at once while a part is written: the next piece is on its way while the store takes one.
_WRITE_WINDOW = 2


class PieceRead(Job):
    """Read one piece into its place in LMCache's buffer, and check it."""

    def __init__(
        self,
        endpoint: Endpoint,
        key: bytes,
        manifest: Manifest,
        index: int,
        destination: memoryview,
        deadline: float,
        done: Callable[[str], None],
    ) -> None:
        """Call `done` once with "" or the reason why the piece is not there."""
        self._endpoint = endpoint
        self._command = command(b"HGET", key, piece_field(manifest.nonce, index))
        self._manifest = manifest
        self._index = index
        self._destination = destination
        self._done = done
        self._over = False
        self.deadline = deadline
        self._queued = time.monotonic()
        self._begun = False

    def start(self, connection: Connection) -> None:
        """Ask for the piece."""
        if not self._begun:
            self._begun = True
            self._endpoint.histograms["wait"].observe(time.monotonic() - self._queued)
            self._endpoint.rate.begin(len(self._destination))
        connection.send([self._command])

    def finish(self, connection: Connection) -> None:
        """Receive the piece in place and compare its checksum."""
        started = time.monotonic()
        try:
            there = connection.read_into(self._destination)
        except ReplyError as error:
            self._endpoint.counters.add("damaged")
            self._endpoint.fault = f"piece: {error}"
            self._settle("damaged")
            return
        if not there:
            self._settle("vanished")
            return
        received = time.monotonic()
        whole = self._manifest.matches(self._index, self._destination)
        checked = time.monotonic()
        stages = self._endpoint.histograms
        stages["server"].observe(connection.waited_s)
        stages["copy"].observe(max(0.0, received - started - connection.waited_s))
        stages["checksum"].observe(checked - received)
        if not whole:
            self._endpoint.counters.add("damaged")
        self._settle("" if whole else "damaged")

    def failed(self, reason: str) -> None:
        """Settle as not loaded."""
        self._settle(reason)

    def _settle(self, reason: str) -> None:
        if self._over:
            return
        self._over = True
        size = len(self._destination)
        if self._begun:
            self._endpoint.rate.end(size, 0 if reason else size)
        if not reason:
            self._endpoint.loaded_bytes += size
        # The buffer is LMCache's again: nothing here may keep a view of it.
        self._destination = memoryview(b"")
        self._done(reason)


@dataclass(frozen=True)
class Part:
    """What of a chunk goes to one endpoint."""

    index: IndexName
    cid: bytes
    stamp: float
    """Unix seconds of the access that this is, for the index."""
    nonce: bytes
    piece_bytes: int
    pieces: Sequence[int]
    checksums: list[int]
    """Of all pieces of the chunk; the part fills in its own."""


class PartWrite(Job):
    """Reserve room in the index, then write the pieces. The manifest, written after all parts, makes them count.

    The index entry comes first, so that nothing can take space without being in it: what a crash leaves behind is
    evicted like everything else.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        ledger: Ledger,
        part: Part,
        chunk: memoryview,
        deadline: float,
        done: Callable[[str], None],
    ) -> None:
        """Call `done` once with "" or the reason why the part was not written."""
        self._endpoint = endpoint
        self._ledger = ledger
        self._part = part
        self._chunk = chunk
        self._done = done
        self._over = False
        self.deadline = deadline
        self.cost = part.index.stored_bytes

    def finish(self, connection: Connection) -> None:
        """Write the part."""
        part = self._part
        refused = self._reserve(connection)
        if refused:
            self._settle(refused)
            return
        waiting = 0
        error: ReplyError | None = None
        for number in part.pieces:
            # Loads go first: they hold up a prompt, this holds up nothing.
            self._endpoint.load.wait_idle(_YIELD_S)
            piece = self._chunk[piece_slice(len(self._chunk), part.piece_bytes, number)]
            # Just before it is sent, so that the processor's cache holds it for both.
            part.checksums[number] = checksum_of(piece)
            key, field = chunk_key(part.index.namespace, part.cid), piece_field(part.nonce, number)
            connection.send(command_with(piece, b"HSET", key, field))
            waiting += 1
            if waiting >= _WRITE_WINDOW:
                error = _error(connection.read())
                waiting -= 1
                if error:
                    break
        for _ in range(waiting):
            error = _error(connection.read()) or error
        if error:
            self._endpoint.refuse_writes(str(error), _REFUSED_FOR_S)
            self._withdraw(connection, drop=True)
            self._settle("refused")
            return
        self._endpoint.stored_bytes += part.index.stored_bytes
        self._settle("")

    def failed(self, reason: str) -> None:
        """Settle as not stored."""
        self._settle(reason)

    def _reserve(self, connection: Connection) -> str:
        """Enter the part in the index; return why there is no room for it, or nothing."""
        part = self._part
        self._ledger.expect(part.index)
        indexes, questions = self._ledger.questions()
        # The registry each time: it costs little, and a store that lost its data has lost it too.
        registered = command(b"SADD", INDEX_REGISTRY, part.index.registered)
        entry = command(b"ZADD", part.index.key, b"NX", f"{part.stamp:.3f}", part.cid)
        replies = connection.pipeline([registered, entry, command(b"SMEMBERS", INDEX_REGISTRY), *questions])
        errors = [reply for reply in replies[:3] if isinstance(reply, ReplyError)]
        if errors:
            self._endpoint.refuse_writes(str(errors[0]), _REFUSED_FOR_S)
            return "refused"
        cards = replies[3:]
        self._ledger.learn(IndexName.parse_all(replies[2]))
        if set(indexes) != set(self._ledger.indexes):
            # Others have indexes that this process did not know: what they hold takes room too.
            indexes, questions = self._ledger.questions()
            cards = connection.pipeline(questions)
        used = self._ledger.count(indexes, cards)
        if used > self._ledger.capacity_bytes:
            if replies[1] == 1:
                self._withdraw(connection, drop=False)
            return "full"
        return ""

    def _withdraw(self, connection: Connection, drop: bool) -> None:
        """Take the entry out of the index again, and with `drop` first what was written."""
        part = self._part
        commands = [command(b"ZREM", part.index.key, part.cid)]
        if drop:
            commands.insert(0, command(b"UNLINK", chunk_key(part.index.namespace, part.cid)))
        connection.pipeline(commands)

    def _settle(self, reason: str) -> None:
        if self._over:
            return
        self._over = True
        self._chunk = memoryview(b"")
        self._done(reason)


def _error(reply: object) -> ReplyError | None:
    return reply if isinstance(reply, ReplyError) else None
