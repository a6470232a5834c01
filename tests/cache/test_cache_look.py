"""`kvstrata cache ls` and `du` on real servers."""

from __future__ import annotations

import json
import time

import pytest
from typer.testing import CliRunner

from kvstrata.cache import cli, tables
from tests.cache.conftest import Caches
from tests.cache.servers import CAPACITY, NEW, NEW_NS, OLD, OLD_NS, PIECE, fill


def test_ls_gives_what_each_namespace_is_and_takes_on_all_stores(caches: Caches) -> None:
    found = caches.json("ls")
    assert (found["schema"], found["site"], found["error"]) == (1, "test", None)
    assert found["current"] == [NEW_NS]
    assert (found["chunks"], found["used_bytes"]) == (5, 800_000)
    old, new = found["namespaces"]
    assert (old["namespace"], old["current"], old["identity"]) == (OLD_NS, False, OLD)
    assert (old["chunks"], old["used_bytes"], old["share"]) == (3, 500_000, 0.625)
    assert (new["namespace"], new["current"], new["identity"]) == (NEW_NS, True, NEW)
    assert (new["chunks"], new["used_bytes"], new["share"]) == (2, 300_000, 0.375)
    assert found["unreachable"] == []


def test_ls_says_when_a_namespace_was_used(caches: Caches) -> None:
    now = time.time()
    client = caches.servers[0].client
    client.sadd("kvsx", f"{OLD_NS}:7")
    client.zadd(f"kvsx:{OLD_NS}:7", {b"x" * 16: now - 86_400, b"y" * 16: now - 100})
    old, new = sorted(caches.json("ls")["namespaces"], key=lambda row: row["current"])
    assert old["oldest_access"] == pytest.approx(now - 86_400, abs=1)
    assert old["oldest_age_s"] == pytest.approx(86_400, abs=60)
    assert now - 60 < new["oldest_access"] <= new["newest_access"] <= time.time()
    assert old["newest_age_s"] < 60


def test_a_chunk_of_unknown_age_makes_nothing_old(empty: Caches) -> None:
    client = empty.servers[0].client
    client.sadd("kvsx", f"{OLD_NS}:7")
    client.zadd(f"kvsx:{OLD_NS}:7", {b"x" * 16: 0})
    row = next(row for row in empty.json("ls")["namespaces"] if row["namespace"] == OLD_NS)
    assert (row["chunks"], row["oldest_access"], row["newest_age_s"]) == (1, None, None)
    client.zadd(f"kvsx:{OLD_NS}:7", {b"y" * 16: 1000.5})
    row = next(row for row in empty.json("ls")["namespaces"] if row["namespace"] == OLD_NS)
    assert (row["oldest_access"], row["newest_access"]) == (1000.5, 1000.5)


def test_the_current_namespace_is_a_row_even_when_it_holds_nothing(empty: Caches) -> None:
    (row,) = empty.json("ls")["namespaces"]
    assert (row["namespace"], row["current"], row["chunks"], row["stores"]) == (NEW_NS, True, 0, 0)
    assert (row["identity"], row["share"], row["newest_access"]) == (None, 0.0, None)


@pytest.mark.parametrize("said", [b"{", b"[1]", b"\xff"])
def test_a_description_that_is_none_is_unknown_and_no_error(caches: Caches, said: bytes) -> None:
    for server in caches.servers:
        server.client.set(f"kvsn:{OLD_NS}", said)
    rows = {row["namespace"]: row for row in caches.json("ls")["namespaces"]}
    assert rows[OLD_NS]["identity"] is None
    assert rows[NEW_NS]["identity"] == NEW


def test_what_is_not_an_index_in_the_registry_is_passed_over(caches: Caches) -> None:
    caches.servers[0].client.sadd("kvsx", "nonsense", "a:b", "kvs-x:-5", b"\xff:1")
    assert {row["namespace"] for row in caches.json("ls")["namespaces"]} == {OLD_NS, NEW_NS}


def test_the_table_of_ls_names_all_of_it(caches: Caches) -> None:
    lines = caches.run("ls").stdout.splitlines()
    old = next(line for line in lines if OLD_NS in line)
    new = next(line for line in lines if NEW_NS in line)
    for cell in ("r1", "bfloat16/auto", "256", "2", "0123456789ab", "3", "488 KiB", "62.5%"):
        assert cell in old
    assert "current" in new
    assert "current" not in old


def test_a_description_cannot_colour_the_table(empty: Caches) -> None:
    fill(empty.servers, OLD | {"model": "[bold]x[/]", "revision": "[/nothing]"}, [("a", 5000)])
    assert "[bold]x[/]" in empty.run("ls").stdout


def test_du_gives_each_store_and_the_totals(caches: Caches, kind: str) -> None:
    found = caches.json("du")
    rows = found["stores"]
    assert [(row["node"], row["drive"], row["engine"]) for row in rows] == [
        ("node1", "d0", kind),
        ("node2", "d0", kind),
    ]
    assert [row["store"] for row in rows] == [f"127.0.0.1:{server.port}" for server in caches.servers]
    for row in rows:
        assert (row["capacity_bytes"], row["error"]) == (CAPACITY, None)
        assert sum(row["namespaces"].values()) == row["used_bytes"]
    assert sum(row["namespaces"].get(OLD_NS, 0) for row in rows) == 500_000
    totals = found["totals"]
    assert (totals["stores"], totals["unreachable"], totals["capacity_bytes"]) == (2, 0, 2 * CAPACITY)
    assert (totals["chunks"], totals["used_bytes"]) == (5, 800_000)


def test_du_gives_what_the_files_take_where_there_are_files(caches: Caches, kind: str) -> None:
    found = caches.json("du")
    for row, server in zip(found["stores"], caches.servers, strict=True):
        if kind == "kvrocks":
            assert row["files_bytes"] == server.client.info("keyspace")["used_db_size"]
            assert row["files_limit_bytes"] == 1 << 30
        else:
            assert (row["files_bytes"], row["files_limit_bytes"]) == (None, None)
    assert isinstance(found["totals"]["files_bytes"], int if kind == "kvrocks" else type(None))


def test_a_striped_chunk_counts_with_its_part_on_each_store(empty: Caches) -> None:
    fill(empty.servers, OLD, [("s", 4 * PIECE)], width=2)
    assert [row["used_bytes"] for row in empty.json("du")["stores"]] == [2 * PIECE] * 2
    row = next(row for row in empty.json("ls")["namespaces"] if row["namespace"] == OLD_NS)
    assert (row["stores"], row["chunks"], row["used_bytes"]) == (2, 2, 4 * PIECE)


def test_the_table_of_du_has_a_row_for_each_store(caches: Caches) -> None:
    text = caches.run("du").stdout
    for server in caches.servers:
        assert f"127.0.0.1:{server.port}" in text
    assert "2 of 2 stores" in text
    assert "781 KiB" in text
    assert OLD_NS in text


@pytest.mark.parametrize("command", ["ls", "du"])
def test_a_store_that_does_not_answer_is_said_and_is_exit_status_2(caches: Caches, command: str) -> None:
    caches.servers[1].stop()
    found = caches.json(command, status=2)
    rows = found["unreachable"] if command == "ls" else found["stores"]
    row = next(row for row in rows if row["node"] == "node2")
    assert row["store"] == f"127.0.0.1:{caches.servers[1].port}"
    assert "refused" in row["error"]
    done = caches.run(command)
    assert done.exit_code == 2
    assert "NO ANSWER" in done.stdout


def test_the_totals_are_those_of_the_stores_that_answer(caches: Caches) -> None:
    caches.servers[1].stop()
    found = caches.json("du", status=2)
    assert found["totals"]["unreachable"] == 1
    assert found["totals"]["capacity_bytes"] == CAPACITY
    assert found["totals"]["used_bytes"] == found["stores"][0]["used_bytes"]
    assert found["stores"][1]["used_bytes"] is None
    assert found["stores"][1]["capacity_bytes"] == CAPACITY


def test_a_refused_password_is_said_and_not_shown(caches: Caches) -> None:
    caches.servers[0].client.config_set("requirepass", "another")
    row = caches.json("du", status=2)["stores"][0]
    assert row["error"] == "the inventory's password was refused"


def test_a_key_of_another_type_is_the_error_of_its_store_alone(caches: Caches) -> None:
    client = caches.servers[0].client
    client.delete("kvsx")
    client.set("kvsx", "x")
    first, second = caches.json("du", status=2)["stores"]
    assert "WRONGTYPE" in first["error"]
    assert second["error"] is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give either --inventory or --cluster"),
        (["--cluster", "nowhere.json"], "nowhere.json: No such file"),
        (["-i", "nowhere"], "inventory nowhere: no such file or folder"),
    ],
)
def test_a_site_that_cannot_be_read_is_exit_status_2(words: list[str], said: str) -> None:
    done = CliRunner().invoke(cli.app, ["ls", "--json", *words])
    assert done.exit_code == 2
    assert said in done.stderr
    assert said in json.loads(done.stdout)["error"]


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.98 KiB"),
        (1023 << 10, "1.00 MiB"),
        (10 << 20, "10.0 MiB"),
        (123 << 30, "123 GiB"),
        (5 << 50, "5,120 TiB"),
    ],
)
def test_sizes_have_three_digits(size: int, shown: str) -> None:
    assert tables.show_bytes(size) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (200_000, "2 d"), (None, "")]
)
def test_ages_have_the_largest_unit_of_which_there_are_two(seconds: float | None, shown: str) -> None:
    assert tables.show_age(seconds) == shown
