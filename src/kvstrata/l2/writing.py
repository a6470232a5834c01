"""One chunk on its way to the stores: is it there already? - its parts - its manifest, last."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kvstrata.l2.batch import Batch
from kvstrata.l2.checksum import PREFERRED
from kvstrata.l2.layout import NONCE_BYTES, LayoutError, Manifest, check_fits, checked_piece_count, piece_count
from kvstrata.l2.names import INDEX_REGISTRY, MANIFEST_FIELD, IndexName, chunk_key, piece_field
from kvstrata.l2.pool import Call
from kvstrata.l2.reconcile import stored_bytes
from kvstrata.l2.transfer import AGE_STEP_S, Part, PartWrite
from kvstrata.l2.wire import command

if TYPE_CHECKING:
    from kvstrata.l2.tier import Tier


@dataclass(frozen=True)
class Stored:
    """What became of one chunk that was offered."""

    ok: bool
    """The chunk is on the stores, or the policy did not want it there."""
    written: int
    """Bytes written now."""
    why: str
    """`stored`, `present`, `not_admitted`, or why it was dropped."""


class Writing:
    """One chunk on its way: is it there already? - its parts - its manifest."""

    def __init__(
        self,
        tier: Tier,
        batch: Batch[Stored],
        number: int,
        identity: bytes,
        cid: bytes,
        data: memoryview,
        home: int,
        stripe: list[int],
        deadline: float,
    ) -> None:
        """Prepare to write `data` to the endpoints `stripe`, its manifest to `home`."""
        self._tier = tier
        self._batch = batch
        self._number = number
        self._identity = identity
        self._cid = cid
        self._data = data
        self._home = home
        self._stripe = stripe
        self._deadline = deadline
        self._nonce = os.urandom(NONCE_BYTES)
        self._stamp = time.time() - number * AGE_STEP_S
        self._key = chunk_key(tier.config.namespace, cid)

    def begin(self) -> None:
        """Ask whether somebody stored it before."""
        self._call([command(b"HEXISTS", self._key, MANIFEST_FIELD)], self._looked)

    def _looked(self, replies: list[object] | None) -> None:
        if replies is None:
            self._end("unavailable")
        elif replies[0] == 1:
            self._end("present")
        else:
            self._write_parts()

    def _write_parts(self) -> None:
        tier, size = self._tier, self._tier.config.piece_bytes
        try:
            check_fits(self._identity, len(self._stripe))
            count = checked_piece_count(len(self._data), size)
        except LayoutError:
            self._end("impossible_size")
            return
        checksums, nonce = [0] * count, self._nonce
        ids = tuple(tier.ids[place] for place in self._stripe)
        manifest = Manifest(self._identity, nonce, len(self._data), size, ids, PREFERRED, tuple(checksums))

        def written(reasons: list[str]) -> None:
            wrong = [reason for reason in reasons if reason]
            if wrong:
                self._take_back()
                self._end(wrong[0])
            else:
                self._publish(replace(manifest, checksums=tuple(checksums)))

        parts = Batch(["internal_error"] * len(self._stripe), written)
        with parts:
            for turn, place in enumerate(self._stripe):
                pieces = range(turn, count, len(self._stripe))
                if not pieces:
                    parts.settle(turn, "")
                    continue
                parts.expect(turn)
                index = IndexName(tier.config.namespace, stored_bytes(manifest, tier.ids[place]))
                part = Part(index, self._cid, self._stamp, nonce, size, pieces, checksums)
                endpoint, ledger = tier.endpoints[place], tier.ledgers[place]
                endpoint.store.submit(
                    PartWrite(endpoint, ledger, part, self._data, self._deadline, parts.settler(turn))
                )

    def _publish(self, manifest: Manifest) -> None:
        tier = self._tier
        index = IndexName(tier.config.namespace, stored_bytes(manifest, tier.ids[self._home]))
        data = manifest.encode()
        # The entry once more: an eviction of an older writing of the same chunk may have taken it away.
        commands = [
            command(b"HSETNX", self._key, MANIFEST_FIELD, data),
            command(b"HGET", self._key, MANIFEST_FIELD),
            command(b"ZADD", index.key, b"NX", f"{self._stamp:.3f}", self._cid),
            # With local_first this may be the home's only word of the chunk.
            command(b"SADD", INDEX_REGISTRY, index.registered),
            *tier.describe_namespace(self._home),
        ]
        self._call(commands, lambda replies: self._published(replies, data))

    def _published(self, replies: list[object] | None, ours: bytes) -> None:
        if replies is None:
            self._end("unavailable")
        elif replies[0] == 1 or replies[1] == ours:
            # Ours although not new: the connection was lost with the first answer, and the commands were sent again.
            self._end("stored")
        elif replies[0] == 0:
            # Another node was faster with the same chunk. Its manifest holds; these pieces belong to none.
            self._take_back()
            self._end("present")
        else:
            self._end("refused")

    def _take_back(self) -> None:
        """Remove the pieces of this writing; nobody waits for it, and a piece that stays goes with its chunk."""
        tier = self._tier
        count = piece_count(len(self._data), tier.config.piece_bytes)
        for turn, place in enumerate(self._stripe):
            fields = [piece_field(self._nonce, i) for i in range(turn, count, len(self._stripe))]
            if fields:
                endpoint = tier.endpoints[place]
                commands = [command(b"HDEL", self._key, *fields)]
                endpoint.control.submit(Call(endpoint, commands, self._deadline, lambda _replies: None))

    def _call(self, commands: list[bytes], done: Callable[[list[object] | None], None]) -> None:
        endpoint = self._tier.endpoints[self._home]
        endpoint.control.submit(Call(endpoint, commands, self._deadline, done))

    def _end(self, why: str) -> None:
        written = len(self._data) if why == "stored" else 0
        self._data = memoryview(b"")
        self._tier.stored(self._batch, self._number, Stored(why in ("stored", "present"), written, why))
