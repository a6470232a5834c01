"""Chunks over many endpoints: store, look up, load, delete, each a batch with a deadline and one callback.

The callback comes exactly once, from any thread, and only when no thread of ours touches the caller's buffers any
more. Whatever goes wrong is a miss (lookup, load) or a chunk that was not stored, never an exception.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from kvstrata.l2.alarm import Alarm
from kvstrata.l2.batch import Batch
from kvstrata.l2.breakeven import BreakEven, Source
from kvstrata.l2.config import TierConfig
from kvstrata.l2.keeper import Keeper
from kvstrata.l2.layout import MAX_ENDPOINTS, ForeignError, LayoutError, Manifest
from kvstrata.l2.ledger import Ledger
from kvstrata.l2.metrics import Counters, Exporter, Histogram
from kvstrata.l2.names import MANIFEST_FIELD, NAMESPACE_PREFIX, IndexName, chunk_id, chunk_key
from kvstrata.l2.placement import endpoint_id, ranking, seed
from kvstrata.l2.policy import make_policy
from kvstrata.l2.pool import Call, Endpoint
from kvstrata.l2.reconcile import stored_bytes
from kvstrata.l2.status import status_of
from kvstrata.l2.transfer import AGE_STEP_S, PieceRead
from kvstrata.l2.wire import command
from kvstrata.l2.writing import Stored, Writing

_SWEEP_S = 0.1
# Manifests of looked-up chunks that wait to be loaded; beyond it they are read again.
_MANIFEST_LIMIT = 65536


class Tier:
    """The stores of a cluster as one cache of chunks. A chunk is named by the bytes that identify it."""

    def __init__(self, config: TierConfig, export: bool = False) -> None:
        """Start without connecting to anything; with `export`, publish metrics through prometheus_client."""
        self.config = config
        self.counters = Counters()
        self.policy = make_policy(**config.policy)
        self.break_even = BreakEven(config.min_load_gbps)
        self.endpoints = [
            Endpoint(
                endpoint,
                config.connect_timeout_s,
                config.stall_s,
                (config.loads_per_endpoint, config.pipeline_depth),
                config.store_connections,
                config.store_queue_bytes,
            )
            for endpoint in config.endpoints
        ]
        self.ledgers = [Ledger(endpoint.capacity_bytes) for endpoint in config.endpoints]
        self._seeds = [seed(endpoint.name) for endpoint in self.endpoints]
        self.ids = [endpoint_id(endpoint.name) for endpoint in self.endpoints]
        self._by_id = {number: index for index, number in enumerate(self.ids)}
        self._local = [bool(e.node) and e.node == config.local_node for e in config.endpoints]
        self._described: set[int] = set()
        self._lock = threading.Lock()
        self.locks: dict[bytes, int] = {}
        self._manifests: OrderedDict[bytes, Manifest] = OrderedDict()
        self.keepers = [
            Keeper(endpoint, ledger, local, config.evict_from, config.evict_to, config.compact_share, self.locked)
            for endpoint, ledger, local in zip(self.endpoints, self.ledgers, self._local)
        ]
        self._chunk_bytes = 0
        """Of the largest chunk that was seen: of those that a lookup names only the store knows."""
        self._alarm = Alarm("l2-alarm", lambda _: self.counters.add("internal_errors"))
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._threads = [
            threading.Thread(target=self._sweep, name="l2-sweep", daemon=True),
            threading.Thread(target=self._keep, name="l2-keeper", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        self._exporter = Exporter(self.status, self.histograms)
        if export:
            self._exporter.register()

    # -- store -------------------------------------------------------------------------------------

    def store(self, chunks: Sequence[tuple[bytes, memoryview]], done: Callable[[list[Stored]], None]) -> None:
        """Store chunks, each (identity, data); the policy may decline, and what is there already is not written."""
        deadline = time.monotonic() + self.config.store_deadline_s
        batch = Batch([Stored(False, 0, "dropped")] * len(chunks), done)
        with batch:
            for number, (identity, data) in enumerate(chunks):
                cid = chunk_id(identity)
                self._chunk_bytes = max(self._chunk_bytes, len(data))
                if not self.policy.admit(cid):
                    self.stored(batch, number, Stored(True, 0, "not_admitted"))
                    continue
                places = self._places(cid, write=True)
                if places is None:
                    self.stored(batch, number, Stored(False, 0, "unavailable"))
                    continue
                home, stripe = places
                writing = Writing(self, batch, number, identity, cid, data, home, stripe, deadline)
                batch.expect(number)
                writing.begin()

    def stored(self, batch: Batch[Stored], number: int, result: Stored) -> None:
        """Count what became of a chunk, and settle it."""
        self.counters.add(f"store_{result.why}")
        if result.why == "full" or (result.written and self._filling):
            self._wake.set()
        batch.settle(number, result)

    # -- lookup ------------------------------------------------------------------------------------

    def lookup(self, prefixes: Sequence[Sequence[bytes]], done: Callable[[list[list[bool]]], None]) -> None:
        """Find chunks and lock those found against eviction by this process, until `unlock`.

        Where break-even is on, stores are not asked while nothing of theirs could pass, and not waited for longer than
        computing the chunks takes, as far as their size is known: that of the largest that was seen.

        Args:
            prefixes: rows of identities, each row in prefix order; break-even cuts the tail of each.
            done: gets a row of found flags for each row of `prefixes`.
        """
        deadline = time.monotonic() + self.config.lookup_deadline_s
        rows = [[chunk_id(identity) for identity in row] for row in prefixes]
        for row in rows:
            self.policy.looked_up(row)
        flat = [(identity, cid) for row, cids in zip(prefixes, rows) for identity, cid in zip(row, cids)]
        widths = [len(row) for row in rows]
        reachable = {i: source for i, source in self._sources().items() if self.endpoints[i].breaker.closed}
        asked = self.break_even.asks(reachable)
        if not asked:
            self.counters.add("lookup_chunks", len(flat))
            done([[False] * width for width in widths])
            return

        def found(manifests: list[Manifest | None]) -> None:
            ends = list(itertools.accumulate(widths))
            of_rows = [manifests[end - width : end] for end, width in zip(ends, widths)]
            usable = self._cut([[m is not None and self._reachable(m) for m in row] for row in of_rows], of_rows)
            for cids, row, hits in zip(rows, of_rows, usable):
                self._lock_found(cids, row, hits)
            done(usable)

        batch = self._fetch_manifests(flat, deadline, found, asked)
        patience_s = self.break_even.patience_s(len(flat) * self._chunk_bytes)
        if patience_s is not None and patience_s < self.config.lookup_deadline_s:

            def late(numbers: frozenset[int]) -> None:
                self.counters.add("lookup_late")
                homes = [self._places(flat[number][1], write=False) for number in numbers]
                self.break_even.late(places[0] for places in homes if places is not None)

            self._alarm.at(time.monotonic() + patience_s, lambda: batch.hurry(late))

    def _cut(self, usable: list[list[bool]], manifests: Sequence[Sequence[Manifest | None]]) -> list[list[bool]]:
        """Return what is left of found chunks, row by row, where loading must be worth it."""
        prefixes = [row.index(False) if False in row else len(row) for row in usable]
        parts = [
            [self._share(manifest) for manifest in row[:prefix] if manifest is not None]
            for row, prefix in zip(manifests, prefixes)
        ]
        for row, prefix, kept in zip(usable, prefixes, self.break_even.keep(parts, self._sources())):
            if kept < prefix:
                row[kept:] = [False] * (len(row) - kept)
        return usable

    def _lock_found(self, cids: Sequence[bytes], manifests: Sequence[Manifest | None], usable: Sequence[bool]) -> None:
        with self._lock:
            for cid, manifest, hit in zip(cids, manifests, usable):
                if hit and manifest is not None:
                    self.locks[cid] = self.locks.get(cid, 0) + 1
                    self._manifests[cid] = manifest
            while len(self._manifests) > _MANIFEST_LIMIT:
                self._manifests.popitem(last=False)
        now = time.time()
        for number, (cid, manifest, hit) in enumerate(zip(cids, manifests, usable)):
            if hit and manifest is not None:
                self._touch(cid, manifest, now - number * AGE_STEP_S)
        self.counters.add("lookup_chunks", len(cids))
        self.counters.add("lookup_hits", sum(usable))

    def unlock(self, identities: Sequence[bytes]) -> None:
        """Release locks that `lookup` took; what is not locked is passed over."""
        with self._lock:
            for identity in identities:
                cid = chunk_id(identity)
                count = self.locks.get(cid, 0)
                if count > 1:
                    self.locks[cid] = count - 1
                elif count:
                    del self.locks[cid]
                    self._manifests.pop(cid, None)

    def locked(self, cid: bytes) -> bool:
        """Whether a chunk is between lookup and unlock in this process."""
        return cid in self.locks

    # -- load --------------------------------------------------------------------------------------

    def load(self, chunks: Sequence[tuple[bytes, memoryview]], done: Callable[[list[bool]], None]) -> None:
        """Load chunks, each (identity, buffer of exactly its size); a buffer not loaded may hold garbage."""
        deadline = time.monotonic() + self.config.load_deadline_s
        named = [(identity, chunk_id(identity)) for identity, _ in chunks]
        with self._lock:
            known = {cid: self._manifests[cid] for _, cid in named if cid in self._manifests}
        missing = [pair for pair in named if pair[1] not in known]

        def fetched(manifests: list[Manifest | None]) -> None:
            known.update({cid: m for (_, cid), m in zip(missing, manifests) if m is not None})
            batch = Batch([False] * len(chunks), done)
            with batch:
                for number, ((_, cid), (_, buffer)) in enumerate(zip(named, chunks)):
                    manifest = known.get(cid)
                    if manifest is None:
                        self.counters.add("load_missing")
                    elif manifest.length != len(buffer):
                        self.counters.add("load_wrong_size")
                    elif not self._reachable(manifest):
                        self.counters.add("load_unavailable")
                    else:
                        batch.expect(number)
                        self._read(batch, number, cid, manifest, buffer, deadline)

        if missing:
            self._fetch_manifests(missing, min(deadline, time.monotonic() + self.config.lookup_deadline_s), fetched)
        else:
            fetched([])

    def _read(
        self, batch: Batch[bool], number: int, cid: bytes, manifest: Manifest, buffer: memoryview, deadline: float
    ) -> None:
        def read(reasons: list[str]) -> None:
            wrong = {reason for reason in reasons if reason}
            for reason in wrong:
                self.counters.add(f"load_{reason}")
            if not wrong:
                self.counters.add("loaded_chunks")
            elif wrong & {"damaged", "vanished"}:
                # It can never be whole again: make room for a good one, instead of finding it for ever.
                self.forget(cid, manifest)
            batch.settle(number, not wrong)

        pieces = Batch(["internal_error"] * len(manifest.checksums), read)
        key = chunk_key(self.config.namespace, cid)
        with pieces:
            for index in range(len(manifest.checksums)):
                pieces.expect(index)
                endpoint = self.endpoints[self._by_id[manifest.place(index)]]
                settle = pieces.settler(index)
                view = buffer[manifest.piece(index)]
                endpoint.load.submit(PieceRead(endpoint, key, manifest, index, view, deadline, settle))

    # -- delete ------------------------------------------------------------------------------------

    def delete(self, identities: Sequence[bytes], done: Callable[[list[bool]], None]) -> None:
        """Delete chunks that nobody here has locked; a flag is True where a chunk is gone that was there."""
        deadline = time.monotonic() + self.config.lookup_deadline_s
        named = [(identity, chunk_id(identity)) for identity in identities]

        def fetched(manifests: list[Manifest | None]) -> None:
            batch = Batch([False] * len(named), done)
            with batch:
                for number, ((_, cid), manifest) in enumerate(zip(named, manifests)):
                    if manifest is not None and not self.locked(cid):
                        batch.expect(number)
                        self.forget(cid, manifest, batch.settler(number))

        self._fetch_manifests(named, deadline, fetched)

    def forget(self, cid: bytes, manifest: Manifest, done: Callable[[bool], None] | None = None) -> None:
        """Delete a chunk wherever it has a part; `done` gets whether its manifest's endpoint confirmed."""
        deadline = time.monotonic() + self.config.lookup_deadline_s
        key, namespace = chunk_key(self.config.namespace, cid), self.config.namespace
        home = self._places(cid, write=False)
        for place in {self._by_id[i] for i in manifest.endpoints if i in self._by_id} | ({home[0]} if home else set()):
            index = IndexName(namespace, stored_bytes(manifest, self.ids[place]))
            commands = [command(b"UNLINK", key), command(b"ZREM", index.key, cid)]
            answer = done if home and place == home[0] else None

            def replied(replies: list[object] | None, answer: Callable[[bool], None] | None = answer) -> None:
                if answer is not None:
                    answer(replies is not None and replies[0] == 1)

            endpoint = self.endpoints[place]
            endpoint.control.submit(Call(endpoint, commands, deadline, replied))
        if done is not None and not home:
            done(False)

    # -- where -------------------------------------------------------------------------------------

    def _places(self, cid: bytes, write: bool) -> tuple[int, list[int]] | None:
        """Return the endpoint of a chunk's manifest and those of its pieces, or None when none is available.

        An endpoint that is left alone takes no part: its chunks go to the next in their ranking meanwhile, and are
        looked for there.
        """
        order = [i for i in ranking(cid, self._seeds) if self.endpoints[i].breaker.closed]
        if not order:
            return None
        home = order[0]
        if not write:
            return home, []
        takers = [i for i in order if self.endpoints[i].takes_writes]
        if home not in takers:
            return None
        if self.config.placement == "local_first":
            takers = [i for i in takers if self._local[i]] or takers
        return home, takers[: self.config.stripe_width or MAX_ENDPOINTS]

    def _reachable(self, manifest: Manifest) -> bool:
        return all(i in self._by_id and self.endpoints[self._by_id[i]].breaker.closed for i in manifest.endpoints)

    def _share(self, manifest: Manifest) -> dict[int, int]:
        return {self._by_id[i]: stored_bytes(manifest, i) for i in manifest.endpoints}

    def _sources(self) -> dict[int, Source]:
        return {i: Source(e.rate.bytes_per_s, e.rate.outstanding) for i, e in enumerate(self.endpoints)}

    def _touch(self, cid: bytes, manifest: Manifest, when: float) -> None:
        places = {self._by_id[number] for number in manifest.endpoints}
        if self.config.placement == "local_first" and (home := self._places(cid, write=False)):
            places.add(home[0])
        for place in places:
            index = IndexName(self.config.namespace, stored_bytes(manifest, self.ids[place]))
            self.keepers[place].touch(index, cid, when)

    def _fetch_manifests(
        self,
        named: Sequence[tuple[bytes, bytes]],
        deadline: float,
        done: Callable[[list[Manifest | None]], None],
        asked: frozenset[int] | None = None,
    ) -> Batch[Manifest | None]:
        """Read the manifests of (identity, chunk id) pairs from their endpoints (`asked`: from these alone).

        One pipeline for each endpoint; what is not answered is None.
        """
        none: list[Manifest | None] = [None] * len(named)
        batch = Batch(none, done)
        by_home: dict[int, list[int]] = {}
        for number, (_, cid) in enumerate(named):
            places = self._places(cid, write=False)
            if places is not None and (asked is None or places[0] in asked):
                by_home.setdefault(places[0], []).append(number)
        with batch:
            for home, numbers in by_home.items():
                for number in numbers:
                    batch.expect(number)
                commands = [
                    command(b"HGET", chunk_key(self.config.namespace, named[n][1]), MANIFEST_FIELD) for n in numbers
                ]

                def replied(replies: list[object] | None, numbers: list[int] = numbers, home: int = home) -> None:
                    for number, reply in zip(numbers, replies or [None] * len(numbers)):
                        batch.settle(number, self._manifest(*named[number], home, reply))

                endpoint = self.endpoints[home]
                endpoint.control.submit(Call(endpoint, commands, deadline, replied))
        return batch

    def _manifest(self, identity: bytes, cid: bytes, home: int, reply: object) -> Manifest | None:
        """Return the manifest that a store answered, if it is one, and of that very chunk."""
        if not isinstance(reply, bytes):
            return None
        try:
            manifest = Manifest.decode(reply)
        except ForeignError:
            self.counters.add("manifest_foreign")
            return None
        except LayoutError:
            self.counters.add("manifest_damaged")
            # No writer replaces a manifest, so the chunk would never be found again. Its entry is evicted in its turn.
            endpoint, gone = self.endpoints[home], command(b"UNLINK", chunk_key(self.config.namespace, cid))
            deadline = time.monotonic() + self.config.lookup_deadline_s
            endpoint.control.submit(Call(endpoint, [gone], deadline, lambda _replies: None))
            return None
        if manifest.identity != identity:
            self.counters.add("manifest_of_another")
            return None
        self._chunk_bytes = max(self._chunk_bytes, manifest.length)
        return manifest

    def describe_namespace(self, home: int) -> list[bytes]:
        """Return the command that tells an endpoint what the namespace stands for, once for each endpoint."""
        if home in self._described or not self.config.identity:
            return []
        self._described.add(home)
        text = json.dumps(dict(self.config.identity), sort_keys=True)
        return [command(b"SET", NAMESPACE_PREFIX + self.config.namespace.encode(), text)]

    # -- upkeep ------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        while not self._stop.wait(_SWEEP_S):
            for endpoint in self.endpoints:
                endpoint.sweep()

    def _keep(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(self.config.tick_s)
            self._wake.clear()
            for keeper in self.keepers:
                if not self._stop.is_set():
                    keeper.tick()
            # A policy that only holds back when it must asks for this.
            self.policy.full = self._filling

    def wake_keeper(self) -> None:
        """Let the keeper look now instead of at its next tick."""
        self._wake.set()

    # -- status ------------------------------------------------------------------------------------

    @property
    def used_bytes(self) -> int:
        """Bytes of all chunks of all namespaces on all endpoints, as far as their indexes were read."""
        return sum(ledger.used_bytes or 0 for ledger in self.ledgers)

    @property
    def available(self) -> bool:
        """Whether any endpoint takes requests."""
        return any(endpoint.breaker.closed for endpoint in self.endpoints)

    @property
    def _filling(self) -> bool:
        return any(ledger.fill >= self.config.evict_from for ledger in self.ledgers)

    def histograms(self) -> dict[str, dict[str, Histogram]]:
        """Return the latency histograms: endpoint -> stage (pool.STAGES) -> histogram."""
        return {endpoint.name: endpoint.histograms for endpoint in self.endpoints}

    def status(self) -> dict[str, Any]:
        """Return what is known, without asking any store; JSON-safe. Bytes, seconds, bytes/s."""
        return status_of(self)

    def close(self) -> None:
        """Stop everything; when this returns no thread of ours touches a caller's buffer."""
        self._exporter.unregister()
        self._stop.set()
        self._wake.set()
        self._alarm.close()
        patience = max(self.config.load_deadline_s, self.config.store_deadline_s) + 1
        for endpoint in self.endpoints:
            endpoint.close(patience)
        for thread in self._threads:
            thread.join(patience)
        for keeper in self.keepers:
            keeper.close()
