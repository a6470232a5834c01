"""The tier against real stores. What hanging, killed and full stores do to it is tested elsewhere."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from kvstrata.l2 import keeper as keeper_module
from kvstrata.l2 import listing as listing_module
from kvstrata.l2 import writing as writing_module
from kvstrata.l2.config import EndpointConfig, TierConfig
from kvstrata.l2.layout import Manifest
from kvstrata.l2.listing import Listing
from kvstrata.l2.names import IndexName, chunk_id, chunk_key
from kvstrata.l2.placement import endpoint_id, ranking, seed
from kvstrata.l2.tier import Tier
from kvstrata.l2.writing import Stored
from tests.l2.scripted import pattern
from tests.l2.stores import Store

NAMESPACE = "test-ns"
PIECE = 4096
MIB = 1 << 20
PATIENCE_S = 20.0


class Client:
    """A tier whose calls are awaited; counts the callbacks of each."""

    def __init__(self, stores: Sequence[Store], capacity: int = 1 << 30, **fields: Any) -> None:
        nodes = [f"node{number}" for number in range(len(stores))]
        endpoints = tuple(
            EndpointConfig("127.0.0.1", store.port, capacity, node=node)
            for store, node in zip(stores, nodes, strict=True)
        )
        fields = {"namespace": NAMESPACE, "piece_bytes": PIECE, "tick_s": 0.05, "local_node": "node0", **fields}
        self.config = TierConfig(endpoints, **fields)
        self.tier = Tier(self.config)
        self.stores = stores

    def _await(self, begin: Callable[[Callable[[Any], None]], None]) -> Any:
        results: list[Any] = []
        over = threading.Event()

        def done(result: Any) -> None:
            results.append(result)
            over.set()

        begin(done)
        assert over.wait(PATIENCE_S), "no callback"
        assert len(results) == 1
        return results[0]

    def store(self, chunks: dict[bytes, bytes]) -> list[Stored]:
        return self._await(  # type: ignore[no-any-return]
            lambda done: self.tier.store([(name, memoryview(data)) for name, data in chunks.items()], done)
        )

    def why(self, name: bytes, data: bytes) -> str:
        return self.store({name: data})[0].why

    def lookup(self, *names: bytes) -> list[bool]:
        return self._await(lambda done: self.tier.lookup([names], done))[0]  # type: ignore[no-any-return]

    def found(self, *names: bytes) -> list[bool]:
        """Look up, and release the locks again."""
        flags = self.lookup(*names)
        self.tier.unlock([name for name, flag in zip(names, flags, strict=True) if flag])
        return flags

    def load(self, sizes: dict[bytes, int]) -> list[bytes | None]:
        buffers = {name: bytearray(size) for name, size in sizes.items()}
        flags = self._await(
            lambda done: self.tier.load([(name, memoryview(buffer)) for name, buffer in buffers.items()], done)
        )
        return [bytes(buffer) if flag else None for buffer, flag in zip(buffers.values(), flags, strict=True)]

    def get(self, name: bytes, size: int) -> bytes | None:
        return self.load({name: size})[0]

    def delete(self, *names: bytes) -> list[bool]:
        return self._await(lambda done: self.tier.delete(names, done))  # type: ignore[no-any-return]

    def tick(self) -> None:
        """Wait until the keeper has been round once more, from beginning to end."""
        before = [keeper._ticks for keeper in self.tier.keepers]

        def round_again() -> bool:
            self.tier.wake_keeper()
            return all(k._ticks > was + 1 for k, was in zip(self.tier.keepers, before, strict=True))

        assert until(round_again), "the keeper stands still"

    def home(self, name: bytes) -> Store:
        """The store that holds the chunk's manifest."""
        return self.stores[ranking(chunk_id(name), [seed(e.name) for e in self.config.endpoints])[0]]

    def manifest(self, name: bytes) -> Manifest:
        reply = self.home(name).call(b"HGET", key_of(name), b"m")
        assert isinstance(reply, bytes)
        return Manifest.decode(reply)


Make = Callable[..., Client]


@pytest.fixture
def client(stores: list[Store]) -> Iterator[Make]:
    """Make clients of the first `count` stores."""
    made: list[Client] = []

    def make(count: int = 3, **fields: Any) -> Client:
        made.append(Client(stores[:count], **fields))
        return made[-1]

    yield make
    for each in made:
        each.tier.close()
        for endpoint in each.tier.endpoints:
            assert endpoint.counters["internal_errors"] == 0, endpoint.fault


def until(condition: Callable[[], bool], seconds: float = PATIENCE_S) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def key_of(name: bytes) -> bytes:
    return chunk_key(NAMESPACE, chunk_id(name))


def holders(stores: Sequence[Store], name: bytes) -> list[int]:
    return [number for number, store in enumerate(stores) if store.call(b"EXISTS", key_of(name))]


def indexed(store: Store) -> dict[str, int]:
    """What the store itself says it holds: index -> number of chunks."""
    return {
        member.decode(): count
        for member in store.listed(b"SMEMBERS", b"kvsx")
        if isinstance(count := store.call(b"ZCARD", b"kvsx:" + member), int) and count
    }


def used(store: Store) -> int:
    return sum(int(index.rpartition(":")[2]) * count for index, count in indexed(store).items())


# -- store, look up, load, delete --------------------------------------------------------------------

SIZES = [1, 2, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE - 1, 50 * PIECE + 7, 300 * PIECE]


@pytest.mark.parametrize("stripe_width", [1, 2, 0])
def test_chunks_of_any_size_make_the_round_trip(client: Make, stripe_width: int) -> None:
    chunks = {b"chunk %d" % size: pattern(size) for size in SIZES}
    sizes = {name: len(data) for name, data in chunks.items()}
    one = client(stripe_width=stripe_width)
    assert one.found(*chunks) == [False] * len(chunks)
    assert one.load(sizes) == [None] * len(chunks)
    assert one.store(chunks) == [Stored(True, len(data), "stored") for data in chunks.values()]
    assert one.lookup(*chunks) == [True] * len(chunks)
    assert one.load(sizes) == list(chunks.values())
    one.tier.unlock(list(chunks))
    assert one.load(sizes) == list(chunks.values()), "without a lookup before"
    assert client(stripe_width=stripe_width).load(sizes) == list(chunks.values()), "by another process"
    assert one.delete(*chunks) == [True] * len(chunks)
    assert one.delete(*chunks) == [False] * len(chunks)
    assert one.found(*chunks) == [False] * len(chunks)
    assert until(lambda: all(holders(one.stores, name) == [] for name in chunks))
    assert until(lambda: all(used(store) == 0 for store in one.stores))


@pytest.mark.parametrize(("stripe_width", "spread"), [(1, 1), (2, 2), (0, 3), (7, 3)])
def test_the_pieces_of_a_chunk_are_spread_over_as_many_endpoints_as_asked(
    client: Make, stripe_width: int, spread: int
) -> None:
    one = client(stripe_width=stripe_width)
    one.store({b"wide": pattern(9 * PIECE)})
    assert len(holders(one.stores, b"wide")) == spread
    assert one.stores.index(one.home(b"wide")) in holders(one.stores, b"wide")
    assert sum(map(used, one.stores)) == 9 * PIECE
    fields = [len(store.listed(b"HKEYS", key_of(b"wide"))) for store in one.stores]
    assert sum(fields) == 9 + 1


def test_many_chunks_are_spread_over_all_endpoints(client: Make) -> None:
    one = client()
    one.store({b"%d" % n: pattern(10, n) for n in range(200)})
    assert sum(sum(indexed(store).values()) for store in one.stores) == 200
    assert min(sum(indexed(store).values()) for store in one.stores) > 40


def test_a_chunk_that_is_there_is_not_written_again(client: Make) -> None:
    one, other = client(), client()
    data = pattern(5 * PIECE)
    assert one.store({b"c": data}) == [Stored(True, len(data), "stored")]
    fields = [store.listed(b"HKEYS", key_of(b"c")) for store in one.stores]
    for writer in (one, other):
        assert writer.store({b"c": data}) == [Stored(True, 0, "present")]
    assert [store.listed(b"HKEYS", key_of(b"c")) for store in one.stores] == fields
    moved = [sum(endpoint.stored_bytes for endpoint in each.tier.endpoints) for each in (one, other)]
    assert moved == [len(data), 0]


def test_the_same_chunk_twice_in_one_call_is_answered_twice(client: Make) -> None:
    one, data = client(), pattern(3 * PIECE)
    results = one._await(lambda done: one.tier.store([(b"c", memoryview(data))] * 2, done))
    assert {result.why for result in results} <= {"stored", "present"}
    buffers = [bytearray(len(data)), bytearray(len(data))]
    assert one._await(lambda done: one.tier.load([(b"c", memoryview(b)) for b in buffers], done)) == [True, True]
    assert buffers == [data, data]


def test_two_writers_of_one_chunk_at_once_leave_one_whole_chunk(client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2, timeout=PATIENCE_S)
    publish = writing_module.Writing._publish

    def together(self: Any, manifest: Manifest) -> None:
        both.wait()
        publish(self, manifest)

    monkeypatch.setattr(writing_module.Writing, "_publish", together)
    one, other = client(stripe_width=2), client(stripe_width=2)
    data = pattern(7 * PIECE)
    reasons: list[str] = []
    threads = [threading.Thread(target=lambda c=c: reasons.append(c.why(b"c", data))) for c in (one, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(reasons) == ["present", "stored"]
    assert one.get(b"c", len(data)) == other.get(b"c", len(data)) == data
    assert sum(map(used, one.stores)) == len(data)

    def fields() -> int:
        return sum(len(store.listed(b"HKEYS", key_of(b"c"))) for store in one.stores)

    assert until(lambda: fields() == 7 + 1), "the loser's pieces stay, and nobody counts them"


def test_a_chunk_is_not_seen_before_its_manifest_is_written(client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[tuple[Any, Manifest]] = []
    publish = writing_module.Writing._publish
    monkeypatch.setattr(writing_module.Writing, "_publish", lambda self, manifest: held.append((self, manifest)))
    one, data = client(), pattern(5 * PIECE)
    answers: list[Any] = []
    one.tier.store([(b"c", memoryview(data))], answers.append)
    assert until(lambda: len(held) == 1)
    assert sum(map(used, one.stores)) == len(data), "its room is taken"
    assert one.found(b"c") == [False]
    assert one.get(b"c", len(data)) is None
    assert answers == []
    publish(*held[0])
    assert until(lambda: len(answers) == 1)
    assert one.get(b"c", len(data)) == data


def test_a_chunk_of_which_a_part_found_no_room_leaves_nothing_behind_however_often_it_is_offered(
    client: Make, stores: list[Store]
) -> None:
    stores[2].call(b"SADD", b"kvsx", b"huge:2147483648")
    stores[2].call(b"ZADD", b"kvsx:huge:2147483648", b"1", b"x" * 16)
    one, data = client(stripe_width=0), pattern(9 * PIECE)
    name = next(b"%d" % n for n in range(100) if one.home(b"%d" % n) is not stores[2])
    for _ in range(3):
        assert one.why(name, data) == "full"
    assert one.found(name) == [False]
    assert until(lambda: holders(stores, name) == []), "pieces that nobody counts"
    stores[2].call(b"DEL", b"kvsx:huge:2147483648")
    assert one.why(name, data) == "stored"
    assert one.get(name, len(data)) == data


def test_nodes_that_list_the_stores_in_another_order_or_cut_other_pieces_share_them(
    client: Make, stores: list[Store]
) -> None:
    one, other = client(stripe_width=2), Client(stores[::-1], piece_bytes=3 * PIECE)
    data = {b"%d" % n: pattern(7 * PIECE + n, n) for n in range(20)}
    try:
        one.store(data)
        assert other.found(*data) == [True] * 20
        assert other.load({name: len(chunk) for name, chunk in data.items()}) == list(data.values())
        assert {result.why for result in other.store(data)} == {"present"}
    finally:
        other.tier.close()


def test_rows_of_a_lookup_are_answered_row_by_row(client: Make) -> None:
    one = client()
    one.store({b"a": b"1", b"b": b"2", b"c": b"3"})
    rows = [[b"a", b"x", b"c"], [], [b"b"], [b"x", b"x", b"a"]]
    answer = one._await(lambda done: one.tier.lookup(rows, done))
    assert answer == [[True, False, True], [], [True], [False, False, True]]
    assert one.tier.locks == {chunk_id(b"a"): 2, chunk_id(b"b"): 1, chunk_id(b"c"): 1}


def test_where_loading_is_slower_than_computing_the_lookup_is_cut_and_takes_no_lock(client: Make) -> None:
    one = client(1, min_load_gbps=1e5, piece_bytes=MIB)
    names = [b"%d" % n for n in range(4)]
    one.store(dict.fromkeys(names, pattern(2 * MIB)))
    assert one.found(*names) == [True] * 4, "nothing was measured yet"
    assert one.load(dict.fromkeys(names, 2 * MIB)) == [pattern(2 * MIB)] * 4
    assert one.tier.endpoints[0].rate.bytes_per_s
    assert one.lookup(*names) == [False] * 4
    assert one.tier.locks == {}
    assert one.tier.status()["break_even"] == {
        "min_load_gbps": 1e5,
        "cutting": True,
        "cut_chunks": 4,
        "cut_bytes": 8 * MIB,
        "probes": 0,
        "trials": 1,
        "unasked": 0,
    }
    # What is on such a store need not be known.
    assert one.lookup(*names) == [False] * 4
    assert one.tier.status()["break_even"] | {"unasked": 1} == one.tier.status()["break_even"]
    assert one.tier.status()["counters"]["lookup_chunks"] == 12


def test_an_empty_call_is_answered(client: Make) -> None:
    one = client()
    assert one.store({}) == []
    assert one._await(lambda done: one.tier.lookup([], done)) == []
    assert one._await(lambda done: one.tier.lookup([[], [b"x"]], done)) == [[], [False]]
    assert one.load({}) == []
    assert one.delete() == []


def test_a_chunk_that_no_manifest_can_hold_is_not_stored(client: Make) -> None:
    one = client()
    assert one.why(b"empty", b"") == "impossible_size"
    assert one.why(b"x" * 70_000, b"data") == "impossible_size"
    assert [used(store) for store in one.stores] == [0, 0, 0]


@pytest.mark.parametrize("size", [0, 1, 3 * PIECE - 1, 3 * PIECE + 1, 40 * PIECE])
def test_a_buffer_of_another_size_is_a_miss_and_the_chunk_stays(client: Make, size: int) -> None:
    one, data = client(), pattern(3 * PIECE)
    one.store({b"c": data})
    assert one.get(b"c", size) is None
    assert one.tier.counters["load_wrong_size"] == 1
    assert one.get(b"c", len(data)) == data


# -- what is wrong on the stores is a miss -----------------------------------------------------------


def gone(one: Client, name: bytes) -> bool:
    return until(lambda: holders(one.stores, name) == [] and sum(map(used, one.stores)) == 0)


@pytest.mark.parametrize("stripe_width", [1, 2])
@pytest.mark.parametrize("harm", ["same size", "shorter", "longer", "empty", "vanished", "vanished all"])
def test_a_harmed_chunk_is_a_miss_once_and_then_gone_and_written_anew(
    client: Make, stripe_width: int, harm: str
) -> None:
    one, data = client(stripe_width=stripe_width), pattern(5 * PIECE)
    one.store({b"c": data})
    for index in range(5) if harm == "vanished all" else [2]:
        nonce = one.manifest(b"c").nonce.hex().encode()
        field = b"%s:%d" % (nonce, index)
        (store,) = [store for store in one.stores if store.call(b"HEXISTS", key_of(b"c"), field)]
        piece = store.call(b"HGET", key_of(b"c"), field)
        assert isinstance(piece, bytes)
        if harm.startswith("vanished"):
            store.call(b"HDEL", key_of(b"c"), field)
        else:
            changed = {"same size": piece[:-1] + b"\0", "shorter": piece[1:], "longer": piece * 3, "empty": b""}[harm]
            assert changed != piece
            store.call(b"HSET", key_of(b"c"), field, changed)
    assert one.lookup(b"c") == [True]
    assert one.get(b"c", len(data)) is None
    assert one.tier.counters["load_vanished" if harm.startswith("vanished") else "load_damaged"] == 1
    one.tier.unlock([b"c"])
    assert gone(one, b"c")
    assert one.found(b"c") == [False]
    assert one.why(b"c", data) == "stored"
    assert one.get(b"c", len(data)) == data


def test_a_chunk_that_vanishes_between_lookup_and_load_is_a_miss(client: Make) -> None:
    one, data = client(), pattern(5 * PIECE)
    one.store({b"c": data, b"d": data})
    assert one.lookup(b"c", b"d") == [True, True]
    one.home(b"c").call(b"DEL", key_of(b"c"))
    assert one.load({b"c": len(data), b"d": len(data)}) == [None, data]


@pytest.mark.parametrize("manifest", [b"", b"KVS1", b"x" * 200])
def test_a_manifest_that_is_none_is_a_miss(client: Make, manifest: bytes) -> None:
    one, data = client(), pattern(PIECE)
    one.store({b"c": data})
    one.home(b"c").call(b"HSET", key_of(b"c"), b"m", manifest)
    assert one.found(b"c") == [False]
    assert one.get(b"c", len(data)) is None
    assert one.tier.counters["manifest_damaged"] == 1
    assert until(lambda: holders(one.stores, b"c") == [])


@pytest.mark.parametrize("start", [b"KVS2", b"KVS1\xfe"])
def test_the_manifest_of_another_version_is_a_miss_and_stays(client: Make, start: bytes) -> None:
    one, data = client(), pattern(PIECE)
    one.store({b"c": data})
    manifest = one.manifest(b"c").encode()
    one.home(b"c").call(b"HSET", key_of(b"c"), b"m", start + manifest[len(start) :])
    assert one.found(b"c") == [False]
    assert one.get(b"c", len(data)) is None
    assert one.why(b"c", data) == "present"
    assert one.tier.counters["manifest_foreign"] == 2


def test_a_damaged_manifest_does_not_keep_the_chunk_out_for_ever(client: Make) -> None:
    one, data = client(), pattern(PIECE)
    one.store({b"c": data})
    one.home(b"c").call(b"HSET", key_of(b"c"), b"m", b"garbage")
    assert one.found(b"c") == [False]
    assert until(lambda: one.why(b"c", data) == "stored", 5)
    assert one.get(b"c", len(data)) == data


def test_a_key_of_another_type_is_a_miss(client: Make) -> None:
    one = client()
    one.home(b"c").call(b"SET", key_of(b"c"), b"a string")
    assert one.found(b"c") == [False]
    assert one.get(b"c", 10) is None
    assert one.store({b"c": b"0123456789"})[0].ok is False
    assert one.found(b"c") == [False]


def test_the_manifest_of_another_identity_is_a_miss_not_its_bytes(client: Make) -> None:
    one, data = client(1), pattern(3 * PIECE)
    one.store({b"theirs": data})
    raw = one.home(b"theirs").call(b"HGETALL", key_of(b"theirs"))
    assert isinstance(raw, list)
    one.stores[0].call(b"HSET", key_of(b"ours"), *raw)  # type: ignore[arg-type]
    assert one.found(b"ours") == [False]
    assert one.get(b"ours", len(data)) is None
    assert one.tier.counters["manifest_of_another"] == 2
    assert one.get(b"theirs", len(data)) == data


def test_an_endpoint_that_nobody_knows_any_more_is_a_miss(client: Make) -> None:
    three = client(stripe_width=0)
    data = pattern(9 * PIECE)
    names = [b"%d" % n for n in range(20)]
    three.store(dict.fromkeys(names, data))
    two = client(2)
    assert two.found(*names) == [False] * 20
    assert two.load(dict.fromkeys(names, len(data))) == [None] * 20


# -- placement ---------------------------------------------------------------------------------------


def test_local_first_keeps_the_pieces_on_the_own_node_where_the_others_find_them(client: Make) -> None:
    here = client(placement="local_first", local_node="node1")
    there = client(placement="local_first", local_node="node2")
    data = {b"%d" % n: pattern(3 * PIECE, n) for n in range(30)}
    here.store(data)
    assert there.lookup(*data) == [True] * 30
    assert there.load(dict.fromkeys(data, 3 * PIECE)) == list(data.values())
    pieces = {name: here.stores[1].call(b"HLEN", key_of(name)) for name in data}
    assert set(pieces.values()) <= {3, 4}
    assert {there.why(name, chunk) for name, chunk in data.items()} == {"present"}


def test_local_first_without_an_own_store_uses_the_fleet(client: Make) -> None:
    one = client(placement="local_first", local_node="a node without drives")
    assert one.why(b"c", b"data") == "stored"
    assert one.get(b"c", 4) == b"data"


def test_a_manifest_away_from_its_pieces_is_counted_evicted_and_touched_like_any_chunk(client: Make) -> None:
    one = client(placement="local_first", local_node="node1")
    name = next(b"%d" % n for n in range(100) if one.home(b"%d" % n) is one.stores[0])
    one.store({name: pattern(3 * PIECE)})
    assert indexed(one.stores[0]) == {f"{NAMESPACE}:1024": 1}
    assert indexed(one.stores[1]) == {f"{NAMESPACE}:{3 * PIECE}": 1}
    for store, size in ((one.stores[0], 1024), (one.stores[1], 3 * PIECE)):
        store.call(b"ZADD", f"kvsx:{NAMESPACE}:{size}", b"1", chunk_id(name))
    assert one.found(name) == [True]
    for store, size in ((one.stores[0], 1024), (one.stores[1], 3 * PIECE)):
        assert until(lambda store=store, size=size: score(store, size, name) > 1e9)  # type: ignore[misc]


def score(store: Store, size: int, name: bytes) -> float:
    reply = store.call(b"ZSCORE", IndexName(NAMESPACE, size).key, chunk_id(name))
    return float(reply) if isinstance(reply, bytes) else -1.0


# -- locks -------------------------------------------------------------------------------------------


def test_a_chunk_stays_locked_until_every_lookup_was_answered_by_an_unlock(client: Make) -> None:
    one, other = client(), client()
    one.store({b"c": b"data"})
    assert one.lookup(b"c") == one.lookup(b"c") == [True]
    assert one.tier.status()["locked_chunks"] == 1
    assert one.delete(b"c") == [False]
    one.tier.unlock([b"c"])
    assert one.delete(b"c") == [False]
    assert one.get(b"c", 4) == b"data"
    one.tier.unlock([b"c", b"never locked", b"c"])
    assert one.tier.status()["locked_chunks"] == 0
    assert one.delete(b"c") == [True]
    one.store({b"c": b"data"})
    assert one.lookup(b"c") == [True]
    assert other.delete(b"c") == [True], "locks are each process's own"
    assert one.get(b"c", 4) is None


def test_what_is_not_found_is_not_locked(client: Make) -> None:
    one = client()
    assert one.lookup(b"nothing") == [False]
    assert one.tier.status()["locked_chunks"] == 0


# -- capacity ----------------------------------------------------------------------------------------

CHUNK = 4 * PIECE


def keep_storing(one: Client, name: bytes, seed_number: int) -> None:
    """Store a chunk, however often it must be offered while eviction makes room."""
    assert until(lambda: one.store({name: pattern(CHUNK, seed_number)})[0].ok), one.tier.status()


def test_eviction_keeps_the_use_under_the_capacity_and_what_was_touched_survives(client: Make) -> None:
    capacity = 40 * CHUNK
    one = client(1, capacity=capacity)
    hot = [b"hot %d" % n for n in range(8)]
    for number, name in enumerate(hot):
        keep_storing(one, name, number)
    most = 0
    for number in range(3 * 40):
        keep_storing(one, b"cold %d" % number, 100 + number)
        if number % 4 == 0:
            assert one.found(*hot) == [True] * 8, f"after {number}"
        most = max(most, used(one.stores[0]))
    assert most <= capacity
    assert one.load(dict.fromkeys(hot, CHUNK)) == [pattern(CHUNK, n) for n in range(8)]
    cold = one.found(*(b"cold %d" % number for number in range(3 * 40)))
    assert cold[-1]
    assert not any(cold[:60])
    status = one.tier.status()["endpoints"][one.tier.endpoints[0].name]
    assert status["evicted_chunks"] * CHUNK == status["evicted_bytes"]
    assert status["evicted_chunks"] >= 3 * 40 + 8 - 40


def test_a_locked_chunk_is_not_evicted_though_it_is_the_oldest(client: Make) -> None:
    one = client(1, capacity=20 * CHUNK)
    keep_storing(one, b"locked", 0)
    assert one.lookup(b"locked") == [True]
    one.tick()
    one.stores[0].call(b"ZADD", IndexName(NAMESPACE, CHUNK).key, b"XX", b"1", chunk_id(b"locked"))
    for number in range(40):
        keep_storing(one, b"%d" % number, number)
    assert one.get(b"locked", CHUNK) == pattern(CHUNK, 0)


def test_the_use_is_known_right_after_a_restart_and_bounds_what_the_new_process_writes(client: Make) -> None:
    first = client(1, capacity=1 << 30)
    first.store({b"%d" % n: pattern(CHUNK, n) for n in range(50)})
    first.tier.close()
    second = client(1, capacity=20 * CHUNK)
    assert until(lambda: second.tier.ledgers[0].used_bytes is not None)
    assert until(lambda: used(second.stores[0]) <= 20 * CHUNK)
    assert until(lambda: second.tier.used_bytes == used(second.stores[0]))
    third = client(1, capacity=20 * CHUNK, tick_s=1000)
    third.why(b"new", pattern(CHUNK))
    assert third.tier.used_bytes >= 15 * CHUNK, "a store asks, though no tick came before"


def test_a_full_endpoint_takes_no_chunk_before_there_is_room(client: Make) -> None:
    big = client(1)
    big.store({b"%d" % n: pattern(CHUNK, n) for n in range(10)})
    big.tier.close()
    one = client(1, capacity=10 * CHUNK, tick_s=1000)
    assert one.store({b"more": pattern(CHUNK)}) == [Stored(False, 0, "full")]
    assert holders(one.stores, b"more") == []
    assert until(lambda: one.why(b"more", pattern(CHUNK)) == "stored"), "a full store wakes the keeper"


def test_a_refused_chunk_leaves_no_entry_but_takes_away_none_that_was_there(client: Make) -> None:
    one = client(1, capacity=3 * CHUNK, local_node="elsewhere", tick_s=1000)
    store = one.stores[0]
    for number in range(3):
        assert one.why(b"%d" % number, pattern(CHUNK, number)) == "stored"
    assert one.why(b"new", pattern(CHUNK)) == "full"
    assert score(store, CHUNK, b"new") == -1
    # Half-written by another, or by one that died: its room is taken.
    store.call(b"ZADD", IndexName(NAMESPACE, CHUNK).key, b"5", chunk_id(b"half"))
    assert one.why(b"half", pattern(CHUNK)) == "full"
    assert score(store, CHUNK, b"half") == 5


def test_the_stamp_of_a_chunk_that_was_evicted_meanwhile_does_not_bring_its_entry_back(client: Make) -> None:
    one = client(1, tick_s=1000)
    one.tick()
    one.store({b"c": pattern(CHUNK), b"d": pattern(CHUNK)})
    for name in (b"c", b"d"):
        one.stores[0].call(b"ZADD", IndexName(NAMESPACE, CHUNK).key, b"1", chunk_id(name))
    assert one.found(b"c", b"d") == [True, True]
    one.stores[0].call(b"DEL", key_of(b"c"))
    one.stores[0].call(b"ZREM", IndexName(NAMESPACE, CHUNK).key, chunk_id(b"c"))
    one.tick()
    assert score(one.stores[0], CHUNK, b"d") > 1e9, "the stamps are written"
    assert score(one.stores[0], CHUNK, b"c") == -1


def test_a_present_chunk_is_not_taken_out_of_the_index_by_a_full_endpoint(client: Make) -> None:
    big = client(1)
    big.store({b"%d" % n: pattern(CHUNK, n) for n in range(10)})
    one = client(1, capacity=9 * CHUNK, tick_s=1000, evict_from=1.0)
    assert one.why(b"0", pattern(CHUNK, 0)) in ("present", "full")
    assert until(lambda: sum(indexed(one.stores[0]).values()) <= 10)
    assert sum(big.found(*(b"%d" % n for n in range(10)))) == sum(indexed(one.stores[0]).values())


def test_namespaces_are_counted_apart_and_bounded_together(client: Make) -> None:
    one, other = client(1, namespace="one"), client(1, namespace="other")
    one.store({b"a": pattern(CHUNK), b"b": pattern(PIECE)})
    other.store({b"a": pattern(CHUNK)})
    assert other.found(b"a", b"b") == [True, False]
    for each in (one, other):
        assert until(lambda each=each: each.tier.used_bytes == 2 * CHUNK + PIECE)  # type: ignore[misc]
        each.tick()
        (status,) = each.tier.status()["endpoints"].values()
        assert status["namespaces"] == {"one": CHUNK + PIECE, "other": CHUNK}
        assert status["chunks"] == 3


def test_the_older_namespace_is_evicted_first(client: Make) -> None:
    old = client(1, namespace="old", capacity=20 * CHUNK)
    for number in range(15):
        keep_storing(old, b"%d" % number, number)
    old.tier.close()
    new = client(1, namespace="new", capacity=20 * CHUNK)
    for number in range(15):
        keep_storing(new, b"%d" % number, number)
    assert new.found(*(b"%d" % n for n in range(15))) == [True] * 15
    assert 0 < indexed(new.stores[0])[f"old:{CHUNK}"] <= 5


def test_the_identity_behind_a_namespace_is_written_beside_it(client: Make) -> None:
    one = client(1, identity={"model": "m", "tp": 2})
    one.store({b"a": b"1", b"b": b"2"})
    text = one.stores[0].call(b"GET", f"kvsn:{NAMESPACE}")
    assert isinstance(text, bytes)
    assert json.loads(text) == {"model": "m", "tp": 2}


def test_a_policy_that_does_not_admit_a_chunk_writes_nothing(client: Make) -> None:
    one = client(policy={"name": "second_use"})
    assert one.store({b"c": b"data"}) == [Stored(True, 0, "not_admitted")]
    assert [store.call(b"DBSIZE") for store in one.stores] == [0, 0, 0] or holders(one.stores, b"c") == []
    assert one.why(b"c", b"data") == "stored"


# -- who evicts --------------------------------------------------------------------------------------


def test_one_process_holds_the_lease_and_gives_it_back_at_its_end(client: Make) -> None:
    one = client(1)
    assert until(lambda: one.tier.keepers[0].holds_lease)
    other = client(1)
    other.tick()
    other.tick()
    assert not other.tier.keepers[0].holds_lease
    one.tier.close()
    assert until(lambda: other.tier.keepers[0].holds_lease)


def test_the_lease_of_a_process_that_died_is_taken_over_when_it_ends(client: Make) -> None:
    one = client(1)
    assert until(lambda: one.tier.keepers[0].holds_lease)
    one.stores[0].call(b"SET", b"kvsl", b"another", b"PX", b"400")
    one.tick()
    assert not one.tier.keepers[0].holds_lease
    assert one.stores[0].call(b"GET", b"kvsl") == b"another"
    assert until(lambda: one.tier.keepers[0].holds_lease)


def test_another_node_takes_the_lease_only_when_the_own_one_stays_away(
    client: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "_REMOTE_TICKS", 2)
    remote = client(1, local_node="elsewhere")
    remote.tick()
    remote.tick()
    remote.tick()
    assert not remote.tier.keepers[0].holds_lease
    monkeypatch.setattr(keeper_module, "_PATIENCE_S", 0.1)
    assert until(lambda: remote.tier.keepers[0].holds_lease)


def test_a_process_that_lost_its_lease_does_not_give_back_anothers(client: Make) -> None:
    one = client(1)
    assert until(lambda: one.tier.keepers[0].holds_lease)
    one.tier._stop.set()
    one.tier.wake_keeper()
    for thread in one.tier._threads:
        thread.join(PATIENCE_S)
    one.stores[0].call(b"SET", b"kvsl", b"another")
    one.tier.close()
    assert one.stores[0].call(b"GET", b"kvsl") == b"another"


# -- after a crash -----------------------------------------------------------------------------------


def test_a_chunk_that_the_index_lost_is_counted_again_and_goes_first(client: Make) -> None:
    before = client(1)
    before.store({b"lost": pattern(CHUNK), b"kept": pattern(CHUNK, 1)})
    before.tier.close()
    store = before.stores[0]
    store.call(b"DEL", IndexName(NAMESPACE, CHUNK).key, b"kvsx")
    after = client(1)
    assert until(lambda: used(store) == 2 * CHUNK)
    assert score(store, CHUNK, b"lost") == 0
    assert after.found(b"lost", b"kept") == [True, True]
    assert until(lambda: score(store, CHUNK, b"lost") > 1e9), "and is young again when it is used"
    walk = after.tier.keepers[0].reconciler
    assert walk is not None
    assert until(lambda: walk.adopted == 2)


def test_pieces_that_belong_to_nothing_are_removed_and_what_is_not_ours_stays(
    client: Make, stores: list[Store]
) -> None:
    store = stores[0]
    cid = chunk_id(b"orphan").hex()
    store.call(b"HSET", f"kvs:{NAMESPACE}:{cid}", b"0102030405060708:0", pattern(PIECE))
    store.call(b"HSET", f"kvs:bad:{chunk_id(b'x').hex()}", b"m", b"no manifest")
    foreign = [b"kvs:other", b"kvs:ns:xyz", b"kvsother:1", b"user:1", b"kvs:n s:" + cid.encode()]
    for key in foreign:
        store.call(b"SET", key, b"precious")
    one = client(1)
    assert until(lambda: store.call(b"EXISTS", f"kvs:{NAMESPACE}:{cid}") == 0)
    assert until(lambda: store.call(b"EXISTS", f"kvs:bad:{chunk_id(b'x').hex()}") == 0)
    walk = one.tier.keepers[0].reconciler
    assert walk is not None
    assert until(lambda: walk.dropped == 2)
    assert [store.call(b"GET", key) for key in foreign] == [b"precious"] * len(foreign)


def test_a_key_of_another_type_does_not_keep_the_walk_from_the_others(client: Make) -> None:
    before = client(1)
    store = before.stores[0]
    before.store({b"%d" % n: pattern(PIECE, n) for n in range(100)})
    before.tier.close()
    store.call(b"DEL", IndexName(NAMESPACE, PIECE).key)
    strange = [chunk_key(NAMESPACE, bytes([n] * 16)) for n in range(5)]
    for key in strange:
        store.call(b"SET", key, b"a string")
    after = client(1)
    assert until(lambda: used(store) == 100 * PIECE)
    assert until(lambda: after.tier.keepers[0].reconciler is not None and after.tier.keepers[0].reconciler.done)
    assert after.tier.endpoints[0].counters["upkeep_errors"] == 0


def test_the_walk_leaves_what_is_in_order_as_it_is(client: Make) -> None:
    one = client(stripe_width=2)
    one.store({b"%d" % n: pattern(3 * PIECE, n) for n in range(700)})
    before = [indexed(store) for store in one.stores]
    one.tier.close()
    other = client(stripe_width=2).tier.keepers[0]
    assert until(lambda: other.reconciler is not None and other.reconciler.done)
    assert other.reconciler is not None
    assert other.reconciler.seen > 300
    assert other.reconciler.adopted == other.reconciler.dropped == 0
    assert [indexed(store) for store in one.stores] == before


@pytest.mark.parametrize(
    "rubbish",
    [
        [(b"SADD", b"kvsx", b"no number", b"ns:-1", b"\xff\xfe:5", b"ns:" + b"9" * 5000)],
        [(b"SET", b"kvsx", b"a string")],
        [(b"SADD", b"kvsx", b"test-ns:5"), (b"SET", b"kvsx:test-ns:5", b"a string")],
        [(b"RPUSH", b"kvsl", b"a list")],
    ],
)
def test_rubbish_among_the_keys_does_not_stop_the_upkeep(
    client: Make, stores: list[Store], rubbish: list[tuple[bytes, ...]]
) -> None:
    for words in rubbish:
        stores[0].call(*words)
    one = client()
    one.tick()
    one.tick()
    assert [thread.name for thread in one.tier._threads if not thread.is_alive()] == []
    name = next(b"%d" % n for n in range(100) if one.home(b"%d" % n) is one.stores[1])
    assert one.why(name, b"data") == "stored"


# -- listing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 40, 1000])
@pytest.mark.parametrize("stripe_width", [1, 2])
def test_pages_list_every_chunk_once(client: Make, size: int, stripe_width: int) -> None:
    one = client(stripe_width=stripe_width)
    client(namespace="another").store({b"not ours": b"data"})
    data = {b"%d" % n: pattern(1 + n * 300, n) for n in range(40)}
    assert {result.why for result in one.store(data)} == {"stored"}
    seen: list[tuple[bytes, int]] = []
    cursor: str | None = None
    for _ in range(300):
        page = Listing(one.tier).page(size, cursor, None)
        assert len(page.entries) <= size
        seen += page.entries
        cursor = page.cursor
        if cursor is None:
            break
    assert sorted(seen) == sorted((name, len(chunk)) for name, chunk in data.items())
    odd = Listing(one.tier).page(1000, None, lambda identity: int(identity) % 2 == 1)
    assert sorted(int(identity) for identity, _ in odd.entries) == list(range(1, 40, 2))


def test_a_page_that_takes_long_because_little_is_wanted_leaves_nothing_out(
    client: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing_module, "_STEP_DEADLINE_S", 0.5)
    one = client(1)
    one.store({b"%d" % n: pattern(100, n) for n in range(40)})

    def wanted(identity: bytes) -> bool:
        time.sleep(0.03)
        return int(identity) % 20 == 0

    page = Listing(one.tier).page(3, None, wanted)
    assert sorted(identity for identity, _ in page.entries) == [b"0", b"20"]
    assert one.tier.counters["listing_errors"] == 0


@pytest.mark.parametrize("cursor", ["", "1", "0.0", "0.0.0.0.0", "-1.0.0", "a.b.c", "0.0.1000000000", "0.0.\u0663"])
def test_a_cursor_that_is_none_is_refused(client: Make, cursor: str) -> None:
    one = client()
    if cursor == "":
        assert Listing(one.tier).page(1, cursor, None).entries == ()
        return
    with pytest.raises(ValueError, match=r"cursor is .* allowed"):
        Listing(one.tier).page(1, cursor, None)


def test_a_page_without_a_size_is_refused(client: Make) -> None:
    with pytest.raises(ValueError, match="page_size is 0; allowed: 1 or more"):
        Listing(client().tier).page(0, None, None)


# -- the end -----------------------------------------------------------------------------------------


def ours() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("l2-")}


def test_closing_answers_everything_under_way_before_it_returns(client: Make) -> None:
    one = client(piece_bytes=MIB, load_connections=2)
    data = {b"%d" % n: pattern(8 * MIB, n) for n in range(3)}
    one.store(data)
    answers: list[Any] = []
    buffers = [(name, bytearray(8 * MIB)) for name in list(data) * 4]
    one.tier.load([(name, memoryview(buffer)) for name, buffer in buffers], answers.append)
    one.tier.lookup([list(data)], answers.append)
    one.tier.store([(b"late %d" % n, memoryview(bytes(MIB))) for n in range(20)], answers.append)
    one.tier.close()
    assert len(answers) == 3
    before = [bytes(buffer[:64]) for _, buffer in buffers]
    loaded = next(answer for answer in answers if len(answer) == 12)
    for flag, (name, buffer) in zip(loaded, buffers, strict=True):
        assert not flag or bytes(buffer) == data[name]
    assert until(lambda: ours() == set())
    assert [bytes(buffer[:64]) for _, buffer in buffers] == before
    assert len(answers) == 3


def test_what_is_asked_after_the_end_is_answered_as_a_miss(client: Make) -> None:
    one = client()
    one.store({b"c": b"data"})
    one.tier.close()
    assert one.store({b"d": b"data"})[0].ok is False
    assert one.lookup(b"c") == [False]
    assert one.load({b"c": 4}) == [None]
    assert one.delete(b"c") == [False]
    one.tier.close()


def test_a_tier_without_any_store_answers_at_once_and_ends(stores: list[Store]) -> None:
    one = Client(stores[:1])
    nowhere = Tier(TierConfig((EndpointConfig("127.0.0.1", 1, 1 << 30),), NAMESPACE, tick_s=0.05))
    one.tier.close()
    one.tier = nowhere
    assert one.lookup(b"c") == [False]
    assert one.store({b"c": b"data"})[0].ok is False
    assert one.load({b"c": 4}) == [None]
    assert nowhere.status()["is_healthy"] is False
    started = time.monotonic()
    nowhere.close()
    assert time.monotonic() - started < 5
    assert until(lambda: ours() == set())


def test_the_status_is_json_and_tells_what_was_moved(client: Make) -> None:
    one = client()
    one.store({b"c": pattern(CHUNK)})
    one.found(b"c", b"d")
    one.get(b"c", CHUNK)
    one.tick()
    status = json.loads(json.dumps(one.tier.status()))
    assert status["is_healthy"]
    assert status["endpoints_up"] == 3
    assert status["used_bytes"] == CHUNK
    assert status["capacity_bytes"] == 3 << 30
    counters = status["counters"]
    assert (counters["store_stored"], counters["lookup_chunks"], counters["lookup_hits"]) == (1, 2, 1)
    assert counters["loaded_chunks"] == 1
    home = status["endpoints"][f"127.0.0.1:{one.home(b'c').port}"]
    assert home["loaded_bytes"] == home["stored_bytes"] == CHUNK
    assert home["latency"]["server"]["count"] == 4
    assert 0 <= home["last_ok_age_s"] < 60
    assert endpoint_id(f"127.0.0.1:{one.home(b'c').port}") == one.manifest(b"c").endpoints[0]
