"""The sketches: they may count too much, never too little; they forget as they say; they stay within their memory."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstrata.l2.sketch import COUNTER_MAX, BloomFilter, CountMinSketch, RecentSet

# Few distinct ids, and ids that differ in one half only, so that collisions and repetitions are common.
CIDS = st.integers(0, 40).map(lambda n: bytes([n % 7]) * 8 + bytes([n // 7]) * 8) | st.binary(min_size=16, max_size=16)


def cid(number: int) -> bytes:
    return hashlib.blake2b(str(number).encode(), digest_size=16).digest()


@given(st.lists(CIDS, max_size=200), st.integers(1, 64))
def test_the_sketch_never_counts_too_little(added: list[bytes], width: int) -> None:
    sketch = CountMinSketch(width)
    for one in added:
        sketch.add(one)
    for one, count in Counter(added).items():
        assert sketch.estimate(one) >= min(count, COUNTER_MAX)


@given(st.lists(CIDS, max_size=200), st.integers(1, 64))
def test_halving_halves_every_estimate(added: list[bytes], width: int) -> None:
    sketch = CountMinSketch(width)
    for one in added:
        sketch.add(one)
    before = {one: sketch.estimate(one) for one in added}
    sketch.halve()
    assert {one: sketch.estimate(one) for one in added} == {one: count // 2 for one, count in before.items()}


def test_a_counter_stops_at_its_most_and_spills_into_no_other() -> None:
    sketch = CountMinSketch(8)
    # Both ids use both counters of shared bytes: columns 0 and 1 of each row.
    first, second = bytes(16), bytes([1]) + bytes(15)
    for _ in range(100):
        sketch.add(first)
    assert sketch.estimate(first) == COUNTER_MAX
    assert sketch.estimate(second) == 0


def test_a_wide_sketch_counts_most_ids_exactly() -> None:
    sketch = CountMinSketch(4096)
    for number in range(1000):
        for _ in range(number % 5):
            sketch.add(cid(number))
    exact = sum(sketch.estimate(cid(number)) == number % 5 for number in range(1000))
    assert exact >= 990


def test_the_sketch_takes_two_bytes_for_each_column() -> None:
    sketch = CountMinSketch(1 << 12)
    for number in range(20000):
        sketch.add(cid(number))
    assert sketch.memory_bytes == 2 << 12


@given(st.lists(CIDS, max_size=200), st.integers(1, 64))
def test_the_filter_knows_whatever_was_added(added: list[bytes], items: int) -> None:
    bloom = BloomFilter(items)
    for one in added:
        bloom.add(one)
    assert all(one in bloom for one in added)


def test_the_filter_tells_whether_an_id_was_new() -> None:
    bloom = BloomFilter(100)
    assert [bloom.add(cid(1)), bloom.add(cid(2)), bloom.add(cid(1))] == [False, False, True]
    assert bloom.added == 2


def test_a_full_filter_is_wrong_about_few_ids() -> None:
    # The worst case of the sizes: 10 * items lies just under a power of two.
    items = (1 << 16) // 10
    bloom = BloomFilter(items)
    for number in range(items):
        bloom.add(cid(number))
    wrong = sum(cid(number) in bloom for number in range(items, items + 20000))
    # 1.2% expected; 8 standard deviations above.
    assert wrong / 20000 < 0.018


@pytest.mark.parametrize("items", [1, 100, 6553, 1 << 16])
def test_the_filter_takes_10_to_20_bits_for_each_item(items: int) -> None:
    bits = BloomFilter(items).memory_bytes * 8
    assert bits == 16 if items == 1 else 10 * items <= bits < 20 * items


def test_a_cleared_filter_is_empty() -> None:
    bloom = BloomFilter(100)
    bloom.add(cid(1))
    bloom.clear()
    assert cid(1) not in bloom
    assert bloom.added == 0


@given(st.lists(CIDS, max_size=300), st.integers(1, 50))
def test_a_recent_set_knows_the_last_window_of_ids(added: list[bytes], window: int) -> None:
    recent = RecentSet(window)
    for one in added:
        recent.add(one)
    last: dict[bytes, None] = {}
    for one in reversed(added):
        last[one] = None
        if len(last) == window:
            break
    assert all(one in recent for one in last)


def test_a_recent_set_forgets_after_two_windows() -> None:
    recent = RecentSet(1000)
    recent.add(cid(0))
    for number in range(1, 1000):
        recent.add(cid(number))
    assert cid(0) in recent
    for number in range(1000, 2100):
        recent.add(cid(number))
    assert cid(0) not in recent


def test_a_recent_set_keeps_what_is_added_again() -> None:
    recent = RecentSet(1000)
    for number in range(10000):
        recent.add(cid(number))
        assert recent.add(cid(0))


def test_a_recent_set_does_not_grow() -> None:
    recent = RecentSet(1000)
    before = recent.memory_bytes
    for number in range(10000):
        recent.add(cid(number))
    assert recent.memory_bytes == before == 2 * 2048
    assert 0 <= recent.fill < 1
