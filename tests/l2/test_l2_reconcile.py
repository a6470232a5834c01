from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from kvstrata.l2.layout import Manifest
from kvstrata.l2.names import IndexName, chunk_id, chunk_key
from kvstrata.l2.placement import endpoint_id
from kvstrata.l2.reconcile import Reconciler, stored_bytes
from kvstrata.l2.wire import Connection
from tests.l2.stores import Store

HERE, THERE = endpoint_id("here:1"), endpoint_id("there:1")
MANIFEST = Manifest(b"identity", b"nonce678", 10_000, 4096, (HERE, THERE), 1, (1, 2, 3))
CID = chunk_id(b"identity")


@pytest.fixture
def connection(stores: list[Store]) -> Iterator[Connection]:
    made = Connection(("127.0.0.1", stores[0].port), 5, 5)
    made.deadline = time.monotonic() + 30
    yield made
    made.close()


def walked(connection: Connection, endpoint: int = HERE) -> Reconciler:
    walk = Reconciler(endpoint)
    walk.step(connection, 30)
    assert walk.done
    return walk


def test_a_chunk_counts_with_the_pieces_that_are_here_and_a_little_where_only_its_manifest_is() -> None:
    assert stored_bytes(MANIFEST, HERE) == 4096 + (10_000 - 2 * 4096)
    assert stored_bytes(MANIFEST, THERE) == 4096
    assert stored_bytes(MANIFEST, endpoint_id("elsewhere:1")) == 1024


def test_a_chunk_without_an_entry_is_adopted_as_the_oldest_of_all(connection: Connection) -> None:
    connection.call(b"HSET", chunk_key("ns", CID), b"m", MANIFEST.encode())
    walk = walked(connection, THERE)
    assert (walk.seen, walk.adopted, walk.dropped) == (1, 1, 0)
    assert connection.call(b"ZSCORE", IndexName("ns", 4096).key, CID) == b"0"
    assert connection.call(b"SISMEMBER", b"kvsx", b"ns:4096") == 1
    again = walked(connection, THERE)
    assert (again.seen, again.adopted, again.dropped) == (1, 0, 0)


def test_a_chunk_that_is_just_being_written_is_left_alone(connection: Connection) -> None:
    connection.call(b"SADD", b"kvsx", b"ns:77")
    connection.call(b"ZADD", IndexName("ns", 77).key, b"5", CID)
    connection.call(b"HSET", chunk_key("ns", CID), b"6e:0", b"a piece, and no manifest yet")
    walk = walked(connection)
    assert (walk.seen, walk.adopted, walk.dropped) == (1, 0, 0)
    assert connection.call(b"EXISTS", chunk_key("ns", CID)) == 1


def test_an_entry_of_another_namespace_does_not_count_for_a_chunk(connection: Connection) -> None:
    connection.call(b"SADD", b"kvsx", b"other:77")
    connection.call(b"ZADD", IndexName("other", 77).key, b"5", CID)
    connection.call(b"HSET", chunk_key("ns", CID), b"6e:0", b"a piece")
    assert walked(connection).dropped == 1


def test_what_another_version_wrote_is_left_alone(connection: Connection) -> None:
    connection.call(b"HSET", chunk_key("ns", CID), b"m", b"KVS2" + MANIFEST.encode()[4:])
    walk = walked(connection)
    assert (walk.adopted, walk.dropped) == (0, 0)
    assert connection.call(b"EXISTS", chunk_key("ns", CID)) == 1


def test_a_walk_goes_on_where_its_time_was_over(connection: Connection) -> None:
    for number in range(3000):
        connection.send(
            [b"*4\r\n$4\r\nHSET\r\n$39\r\n%s\r\n$1\r\nx\r\n$1\r\ny\r\n" % chunk_key("ns", chunk_id(b"%d" % number))]
        )
        connection.read()
    walk = Reconciler(HERE)
    steps = 0
    while not walk.done:
        walk.step(connection, 0.001)
        steps += 1
    assert steps > 1
    assert walk.dropped == walk.seen == 3000
    again = walked(connection)
    assert again.seen == 0


def test_an_index_of_another_type_does_not_keep_the_walk_from_the_others(connection: Connection) -> None:
    connection.call(b"SADD", b"kvsx", b"ns:77", b"ns:78")
    connection.call(b"SET", IndexName("ns", 77).key, b"a string")
    connection.call(b"HSET", chunk_key("other", CID), b"6e:0", b"a piece")
    assert walked(connection).dropped == 1


def test_without_time_nothing_is_done(connection: Connection) -> None:
    walk = Reconciler(HERE)
    walk.step(connection, 0)
    assert not walk.done
    assert walk.seen == 0
