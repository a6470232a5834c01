from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvstrata.l2.keeper import fields_of, oldest
from kvstrata.l2.names import IndexName

SMALL, BIG = IndexName("ns", 10), IndexName("ns", 100)
LIMIT = 4


def free(_cid: bytes) -> bool:
    return False


def test_the_oldest_of_all_indexes_come_first() -> None:
    heads = {SMALL: [(b"s1", 1.0), (b"s4", 4.0)], BIG: [(b"b2", 2.0), (b"b3", 3.0)]}
    assert oldest(heads, 1000, LIMIT, free) == [(SMALL, b"s1"), (BIG, b"b2"), (BIG, b"b3"), (SMALL, b"s4")]


def test_no_more_are_taken_than_are_wanted() -> None:
    heads = {SMALL: [(b"s1", 1.0), (b"s4", 4.0)], BIG: [(b"b2", 2.0), (b"b3", 3.0)]}
    assert oldest(heads, 0, LIMIT, free) == []
    assert oldest(heads, -5, LIMIT, free) == []
    assert oldest(heads, 1, LIMIT, free) == [(SMALL, b"s1")]
    assert oldest(heads, 10, LIMIT, free) == [(SMALL, b"s1")]
    assert oldest(heads, 11, LIMIT, free) == [(SMALL, b"s1"), (BIG, b"b2")]
    assert oldest(heads, 110, LIMIT, free) == [(SMALL, b"s1"), (BIG, b"b2")]


def test_nothing_younger_than_the_end_of_a_full_head_is_taken() -> None:
    # More entries of SMALL may be as old as 3, unseen: b9 must wait.
    heads = {SMALL: [(b"s%d" % n, float(n)) for n in range(LIMIT)], BIG: [(b"b2", 2.5), (b"b9", 9.0)]}
    assert oldest(heads, 10**6, LIMIT, free) == [
        *((SMALL, b"s%d" % n) for n in range(3)),
        (BIG, b"b2"),
        (SMALL, b"s3"),
    ]


def test_the_earliest_end_of_several_full_heads_bounds() -> None:
    heads = {
        SMALL: [(b"s%d" % n, float(n)) for n in range(LIMIT)],
        BIG: [(b"b%d" % n, n / 10) for n in range(LIMIT)],
    }
    assert {cid for _, cid in oldest(heads, 10**6, LIMIT, free)} == {b"s0", b"b0", b"b1", b"b2", b"b3"}


def test_what_is_locked_is_passed_over_and_does_not_count() -> None:
    heads = {SMALL: [(b"s1", 1.0), (b"s2", 2.0), (b"s3", 3.0)]}
    assert oldest(heads, 15, LIMIT, lambda cid: cid == b"s1") == [(SMALL, b"s2"), (SMALL, b"s3")]
    assert oldest(heads, 15, LIMIT, lambda cid: True) == []


def test_empty_indexes_give_nothing() -> None:
    assert oldest({}, 10, LIMIT, free) == []
    assert oldest({SMALL: [], BIG: []}, 10, LIMIT, free) == []


@given(
    st.lists(st.lists(st.floats(0, 100), max_size=12), min_size=1, max_size=4),
    st.integers(1, 500),
    st.sets(st.integers(0, 40)),
)
def test_repeated_eviction_takes_chunks_in_the_order_of_their_age(
    ages: list[list[float]], wanted: int, locked_numbers: set[int]
) -> None:
    number = 0
    indexes: dict[IndexName, list[tuple[bytes, float]]] = {}
    for size, scores in enumerate(ages, 1):
        rows = []
        for score in sorted(scores):
            rows.append((b"%d" % number, score))
            number += 1
        indexes[IndexName("ns", size * 10)] = rows
    locked = {b"%d" % n for n in locked_numbers}
    age = {cid: score for rows in indexes.values() for cid, score in rows}
    taken: list[bytes] = []
    while True:
        heads = {name: rows[:LIMIT] for name, rows in indexes.items()}
        chosen = oldest(heads, wanted, LIMIT, locked.__contains__)
        if not chosen:
            break
        for name, cid in chosen:
            indexes[name] = [row for row in indexes[name] if row[0] != cid]
            taken.append(cid)
    assert len(set(taken)) == len(taken)
    assert not locked & set(taken)
    assert [age[cid] for cid in taken] == sorted(age[cid] for cid in taken)
    if not locked:
        assert len(taken) == number


def test_the_fields_of_an_info_reply_are_read() -> None:
    info = b"# Server\r\nredis_version:7.0.15\r\nkvrocks_version: 2.10.1 \r\nexecutable:/a:b\r\n\xff\r\n\r\n"
    assert fields_of(info) == {"redis_version": "7.0.15", "kvrocks_version": "2.10.1", "executable": "/a:b"}
    assert fields_of(b"") == {}
