"""A drive that fills up: the dead is compacted away first, and what lives goes only if that was not enough."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kvstrata.l2.config import EndpointConfig
from kvstrata.l2.keeper import Keeper
from kvstrata.l2.ledger import Ledger
from kvstrata.l2.names import IndexName
from kvstrata.l2.pool import Endpoint
from tests.l2.scripted import Peer, answering

GIB = 1 << 30
CHUNKS = IndexName("kvs-x", GIB // 8)


class FakeKvrocks:
    """Says how full its drive is, and notes what it is told to do about it."""

    def __init__(self) -> None:
        self.physical = 0
        self.compacting = False
        self.entries = [b"%016d" % n for n in range(4)]
        self.told: list[bytes] = []

    def answer(self, words: list[bytes]) -> bytes:
        name = words[0]
        if name == b"INFO":
            state = "yes" if self.compacting else "no"
            lines = ["kvrocks_version:2.10.1", "process_id:7", f"is_compacting:{state}", "used_db_size:0"]
            lines[-1] = f"used_db_size:{self.physical}"
            text = "\r\n".join([*lines, f"max_db_size:{GIB}"]).encode()
            return b"$%d\r\n%s\r\n" % (len(text), text)
        if name == b"SMEMBERS":
            member = CHUNKS.registered
            return b"*1\r\n$%d\r\n%s\r\n" % (len(member), member)
        if name == b"ZCARD":
            return b":%d\r\n" % len(self.entries)
        if name == b"ZRANGE":
            rows = [word for n, cid in enumerate(self.entries) for word in (cid, b"%d" % n)]
            return b"*%d\r\n" % len(rows) + b"".join(b"$%d\r\n%s\r\n" % (len(row), row) for row in rows)
        if name == b"ZREM":
            self.entries.remove(words[2])
        if name in (b"UNLINK", b"COMPACT"):
            self.told.append(name)
        # SCAN: nothing to walk over.
        return (
            b"*2\r\n$1\r\n0\r\n*0\r\n" if name in (b"SCAN", b"ZSCAN") else b"+OK\r\n" if name == b"SET" else b":1\r\n"
        )


@pytest.fixture
def kept() -> Iterator[tuple[FakeKvrocks, Keeper]]:
    server = FakeKvrocks()

    def answer(words: list[bytes]) -> Any:
        return b"$-1\r\n" if words[:2] == [b"GET", b"kvsl"] else server.answer(words)

    with Peer(answering(answer)) as peer:
        config = EndpointConfig(host="127.0.0.1", port=int(peer.address[1]), capacity_bytes=GIB, node="here")
        endpoint = Endpoint(config, 1.0, 2.0, (1, 1), 1, 0)
        keeper = Keeper(endpoint, Ledger(GIB), True, 0.97, 0.92, 0.05, lambda cid: False)
        # The walk over the index is another test's.
        keeper._reconcile = lambda: None  # type: ignore[method-assign]
        keeper.tick()
        assert server.told == []
        yield server, keeper
        keeper.close()
        endpoint.close(5)
        peer.stopping.set()


def test_a_full_drive_is_compacted_before_anything_that_lives_is_evicted(kept: tuple[FakeKvrocks, Keeper]) -> None:
    server, keeper = kept
    server.physical = GIB
    keeper.tick()
    assert server.told == [b"COMPACT"]
    assert not keeper.endpoint.takes_writes
    server.compacting = True
    keeper.tick()
    assert server.told == [b"COMPACT"], "while it compacts, there is nothing to do"
    server.physical, server.compacting = GIB // 2, False
    keeper.tick()
    assert server.told == [b"COMPACT"], "that was enough"
    assert keeper.evicted_chunks == 0


def test_what_lives_goes_when_compaction_was_in_vain(kept: tuple[FakeKvrocks, Keeper]) -> None:
    server, keeper = kept
    server.physical = GIB
    keeper.tick()
    keeper.tick()
    # 5 % of a GiB too much is less than one chunk.
    assert server.told == [b"COMPACT", b"UNLINK", b"COMPACT"]
    assert keeper.evicted_chunks == 1
    keeper.tick()
    assert server.told == [b"COMPACT", b"UNLINK", b"COMPACT", b"COMPACT"], "compaction's turn again"
