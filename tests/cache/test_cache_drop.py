"""`kvstrata cache drop` on real servers: what goes, what stays, and what is refused."""

from __future__ import annotations

import time
from typing import Any

import pytest
import redis

from kvstrata.cache import drop, reach
from kvstrata.cache.drop import Compaction
from tests.cache.conftest import NEW_CHUNKS, OLD_CHUNKS, Caches
from tests.cache.servers import NEW, NEW_NS, OLD, OLD_NS, PASSWORD, Server, fill, loadable, wait_until


def nothing(chunks: int, used_bytes: int) -> None:
    """Take a note and do nothing with it."""


def test_a_namespace_goes_whole_and_the_other_stays_whole(caches: Caches) -> None:
    found = caches.json("drop", OLD_NS, "--yes")
    totals = found["totals"]
    assert (found["namespace"], found["current"], found["error"]) == (OLD_NS, False, None)
    assert (totals["chunks"], totals["used_bytes"], totals["left_chunks"]) == (3, 500_000, 0)
    assert totals["chunks"] == sum(row["chunks"] for row in found["stores"])
    assert caches.traces(OLD_NS) == []
    assert loadable(caches.servers, NEW, NEW_CHUNKS) == [True, True]
    assert [row["namespace"] for row in caches.json("ls")["namespaces"]] == [NEW_NS]


def test_the_table_says_what_was_deleted(caches: Caches) -> None:
    done = caches.run("drop", OLD_NS, "--yes")
    assert done.exit_code == 0
    assert f"deleting 3 chunks (488 KiB) of {OLD_NS} on 2 stores" in done.stderr
    assert "deleted" in done.stderr
    assert "OK: 3 chunks, 488 KiB deleted on 2 stores" in done.stdout


def test_dropping_again_finds_nothing_and_is_no_error(caches: Caches) -> None:
    caches.json("drop", OLD_NS, "--yes")
    again = caches.json("drop", OLD_NS, "--yes")
    assert (again["totals"]["chunks"], again["totals"]["unindexed_chunks"]) == (0, 0)
    assert caches.chunks(NEW_NS) == 2


def test_kvrocks_gives_the_space_back(empty: Caches, kind: str) -> None:
    if kind != "kvrocks":
        assert empty.json("drop", OLD_NS, "--yes")["stores"][0]["compaction"] == "not_needed"
        return
    fill(empty.servers, OLD, [(f"c{number}", 4 << 20) for number in range(16)])
    for server in empty.servers:
        # Only what was flushed is in files.
        server.client.execute_command("COMPACT")
        wait_until(lambda server=server: files(server) >= stored(server))  # type: ignore[misc]
    found = empty.json("drop", OLD_NS, "--yes")
    assert {row["compaction"] for row in found["stores"]} == {"asked"}
    for server in empty.servers:
        wait_until(lambda server=server: files(server) < 1 << 20)  # type: ignore[misc]


def files(server: Server) -> int:
    """What the files of a Kvrocks take."""
    size: int = server.client.info("keyspace")["used_db_size"]
    return size


def stored(server: Server) -> int:
    """What the index of a server says."""
    return sum(
        server.client.zcard(b"kvsx:" + name) * int(name.rpartition(b":")[2]) for name in server.client.smembers("kvsx")
    )


# -- what is refused -------------------------------------------------------------------------------


def refused(caches: Caches, *words: str) -> str:
    """Run a drop that is refused and deletes nothing; return why."""
    before = [caches.chunks(namespace) for namespace in (OLD_NS, NEW_NS)]
    found = caches.json("drop", *words, status=1)
    assert [caches.chunks(namespace) for namespace in (OLD_NS, NEW_NS)] == before == [3, 2]
    why: str = found["error"]
    return why


def test_the_current_namespace_is_refused_without_force(caches: Caches) -> None:
    why = refused(caches, NEW_NS, "--yes")
    assert f"{NEW_NS} is the namespace of this inventory" in why
    assert "--force" in why


def test_without_a_terminal_it_is_refused_without_yes(caches: Caches) -> None:
    why = refused(caches, OLD_NS)
    assert f"would delete 3 chunks (488 KiB) of {OLD_NS} on 2 stores" in why
    assert "Allowed: --yes" in why


def test_force_is_no_confirmation(caches: Caches) -> None:
    assert "Allowed: --yes" in refused(caches, NEW_NS, "--force")


@pytest.mark.parametrize("name", ["kvs:*", "a b", "", "x" * 65, "*"])
def test_a_name_that_is_none_is_refused_before_anything_is_asked(caches: Caches, name: str) -> None:
    why = refused(caches, name, "--yes", "--force")
    assert f"namespace is {name!r}; allowed: 1 to 64 of" in why


def test_a_site_whose_namespace_is_unknown_drops_only_with_force(caches: Caches) -> None:
    caches.namespace = None
    assert "the inventory gives no namespace" in refused(caches, OLD_NS, "--yes")
    assert caches.json("drop", OLD_NS, "--yes", "--force")["totals"]["chunks"] == 3


# -- a namespace in use ----------------------------------------------------------------------------


def test_with_force_the_current_one_goes_and_can_be_filled_again(caches: Caches) -> None:
    found = caches.json("drop", NEW_NS, "--yes", "--force")
    assert (found["current"], found["totals"]["chunks"]) == (True, 2)
    assert caches.chunks(NEW_NS) == 0
    # Engines described it when they started, and won't again.
    fill(caches.servers, {**NEW}, NEW_CHUNKS)
    row = next(row for row in caches.json("ls")["namespaces"] if row["current"])
    assert (row["chunks"], row["identity"]) == (2, NEW)
    assert caches.chunks(OLD_NS) == 3


def test_a_current_namespace_keeps_its_description(caches: Caches) -> None:
    caches.json("drop", NEW_NS, "--yes", "--force")
    assert set(caches.traces(NEW_NS)) == {f"kvsn:{NEW_NS}".encode()}


def test_what_is_stored_meanwhile_is_said_and_stays_listed(caches: Caches) -> None:
    server = caches.servers[0]

    def store_another(chunks: int, used_bytes: int) -> None:
        client = server.client
        client.sadd("kvsx", f"{OLD_NS}:77")
        client.zadd(f"kvsx:{OLD_NS}:77", {time.time_ns().to_bytes(16, "big"): time.time()})

    store_another(0, 0)
    done = drop.drop(server.client, OLD_NS, store_another)
    assert done.left_chunks == 1
    assert f"{OLD_NS}:77".encode() in server.client.smembers("kvsx")
    assert OLD_NS in {row["namespace"] for row in caches.json("ls")["namespaces"]}


def test_an_entry_made_after_the_last_look_keeps_its_index_registered(caches: Caches) -> None:
    client = caches.servers[0].client
    client.sadd("kvsx", f"{OLD_NS}:77", f"{OLD_NS}:78")
    client.zadd(f"kvsx:{OLD_NS}:77", {b"x" * 16: 1})
    client.set(f"kvsn:{OLD_NS}", "{}")
    drop._forget(client, OLD_NS, keep_description=False)
    registered = client.smembers("kvsx")
    assert f"{OLD_NS}:77".encode() in registered
    assert f"{OLD_NS}:78".encode() not in registered
    assert client.exists(f"kvsn:{OLD_NS}") == 1


# -- what is not as it should be -------------------------------------------------------------------


def test_a_chunk_that_no_index_knows_is_found(caches: Caches) -> None:
    client = caches.servers[1].client
    client.hset(f"kvs:{OLD_NS}:{'ab' * 16}", mapping={"00:0": b"piece"})
    client.hset(f"kvs:{OLD_NS}x:{'ab' * 16}", mapping={"00:0": b"of another"})
    found = caches.json("drop", OLD_NS, "--yes")
    assert [row["unindexed_chunks"] for row in found["stores"]] == [0, 1]
    assert found["totals"]["chunks"] == 3
    assert caches.chunks(OLD_NS) == 0
    assert client.exists(f"kvs:{OLD_NS}x:{'ab' * 16}") == 1


def test_an_entry_without_its_chunk_goes_too(caches: Caches) -> None:
    client = caches.servers[0].client
    client.sadd("kvsx", f"{OLD_NS}:77")
    client.zadd(f"kvsx:{OLD_NS}:77", {b"x" * 16: 1, b"any other member": 2})
    assert caches.json("drop", OLD_NS, "--yes")["totals"]["chunks"] == 5
    assert caches.traces(OLD_NS) == []


def test_more_chunks_than_a_page_are_deleted_page_by_page(empty: Caches, monkeypatch: pytest.MonkeyPatch) -> None:
    server = empty.servers[0]
    fill([server], OLD, [(f"c{number}", 5000) for number in range(5)])
    client = server.client
    for number in range(5):
        client.hset(f"kvs:{OLD_NS}:{number:032x}", mapping={"00:0": b"piece"})
    monkeypatch.setattr(drop, "PAGE", 2)
    notes: list[tuple[int, int]] = []
    done = drop.drop(client, OLD_NS, lambda chunks, used_bytes: notes.append((chunks, used_bytes)))
    assert notes == [(2, 10_000), (2, 10_000), (1, 5000), (2, 0), (2, 0), (1, 0)]
    assert (done.chunks, done.used_bytes, done.unindexed_chunks, done.left_chunks) == (5, 25_000, 5, 0)
    assert server.traces(OLD_NS) == []


class Stopped(Exception):  # noqa: N818
    """Somebody pressed Ctrl-C."""


@pytest.mark.parametrize("command", ["unlink", "pipeline", "scan_iter", "srem"])
def test_stopped_anywhere_it_stays_listed_and_the_next_run_does_the_rest(
    caches: Caches, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    server = next(server for server in caches.servers if server.chunks(OLD_NS))

    class Stopping(redis.Redis):
        """Fails at `command` once the first page is deleted."""

    def stop(*words: Any, **named: Any) -> Any:
        raise Stopped

    monkeypatch.setattr(drop, "PAGE", 1)
    client: Any = Stopping(port=server.port, password=PASSWORD, protocol=2, driver_info=None)
    notes = 0

    def note(chunks: int, used_bytes: int) -> None:
        nonlocal notes
        notes += 1
        monkeypatch.setattr(Stopping, command, stop)

    with pytest.raises(Stopped):
        drop.drop(client, OLD_NS, note)
    assert notes >= 1
    row = next(row for row in caches.json("ls")["namespaces"] if row["namespace"] == OLD_NS)
    assert row["identity"] == OLD
    caches.json("drop", OLD_NS, "--yes")
    assert caches.traces(OLD_NS) == []
    assert loadable(caches.servers, NEW, NEW_CHUNKS) == [True, True]


def test_the_others_are_done_when_a_store_does_not_answer(caches: Caches, kind: str) -> None:
    down = caches.servers[1]
    down.stop()
    found = caches.json("drop", OLD_NS, "--yes", status=2)
    first, second = found["stores"]
    assert first["error"] is None
    assert "refused" in second["error"]
    assert second["chunks"] is None
    assert caches.servers[0].traces(OLD_NS) == []
    done = caches.run("drop", OLD_NS, "--yes")
    assert done.exit_code == 2
    assert "NOT ALL" in done.stdout
    down.start()
    caches.json("drop", OLD_NS, "--yes")
    assert caches.traces(OLD_NS) == []


class Compacting:
    """A Kvrocks that compacts, and ends that after so many questions."""

    def __init__(self, questions: int) -> None:
        self.left = questions

    def info(self, section: str) -> dict[str, str]:
        return {"kvrocks_version": "2.10.1"}

    def execute_command(self, *words: str) -> None:
        assert words == ("COMPACT",)
        self.left -= 1
        if self.left >= 0:
            # The words of Kvrocks 2.10.1.
            raise redis.ResponseError("compact in-progress")


def test_a_compaction_under_way_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drop, "_COMPACTION_POLL_S", 0.001)
    store = Compacting(3)
    assert drop._compact(store) is Compaction.ASKED
    assert store.left == -1


def test_a_compaction_that_does_not_end_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drop, "_COMPACTION_POLL_S", 0.001)
    monkeypatch.setattr(drop, "_COMPACTION_S", 0.05)
    assert drop._compact(Compacting(10**9)) is Compaction.BUSY


def test_another_refusal_of_compaction_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(Compacting):
        def execute_command(self, *words: str) -> None:
            raise redis.ResponseError("unknown command")

    with pytest.raises(redis.ResponseError, match="unknown command"):
        drop._compact(Refusing(0))


def test_ctrl_c_says_what_to_do(caches: Caches, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*words: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(reach, "ask", interrupted)
    found = caches.json("drop", OLD_NS, "--yes", status=130)
    assert "the same command again does the rest" in found["error"]


def test_the_whole_of_the_test_data_is_what_the_tests_think(caches: Caches) -> None:
    assert loadable(caches.servers, OLD, OLD_CHUNKS) == [True] * 3
    assert loadable(caches.servers, NEW, NEW_CHUNKS) == [True] * 2
