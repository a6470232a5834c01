from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstrata.l2.names import chunk_id
from kvstrata.l2.placement import endpoint_id, ranking, seed

ENDPOINTS = ["10.0.0.1:6666", "10.0.0.2:6666", "10.0.0.3:6666", "[fd00::1]:6667", "store-a:6379"]
CHUNKS = [chunk_id(b"%d" % number) for number in range(2000)]
names = st.lists(st.text(max_size=20), min_size=1, max_size=12, unique=True)
cids = st.binary(min_size=16, max_size=16)


def owner(cid: bytes, endpoints: list[str]) -> str:
    return endpoints[ranking(cid, [seed(name) for name in endpoints])[0]]


@pytest.mark.parametrize(
    ("cid", "order"),
    [
        (bytes(16), [0, 3, 4, 1, 2]),
        (b"\xff" * 16, [1, 2, 0, 3, 4]),
        (chunk_id(b"abc"), [1, 2, 3, 0, 4]),
    ],
)
def test_the_ranking_never_changes_for_data_on_drives_depends_on_it(cid: bytes, order: list[int]) -> None:
    assert ranking(cid, [seed(name) for name in ENDPOINTS]) == order


def test_the_ids_of_endpoints_never_change_for_manifests_name_them() -> None:
    assert [endpoint_id(name) for name in ENDPOINTS] == [3407209009, 3481876429, 1596931574, 4273979090, 2826111967]


@given(cids, names)
def test_a_ranking_names_every_endpoint_once(cid: bytes, endpoints: list[str]) -> None:
    assert sorted(ranking(cid, [seed(name) for name in endpoints])) == list(range(len(endpoints)))


@given(cids, names, st.randoms(use_true_random=False))
def test_the_order_in_which_endpoints_are_listed_does_not_matter(
    cid: bytes, endpoints: list[str], chance: object
) -> None:
    shuffled = list(endpoints)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    by_listing = [endpoints[i] for i in ranking(cid, [seed(name) for name in endpoints])]
    by_shuffled = [shuffled[i] for i in ranking(cid, [seed(name) for name in shuffled])]
    assert by_listing == by_shuffled


@given(cids, names, st.data())
def test_without_one_endpoint_the_others_keep_their_order(
    cid: bytes, endpoints: list[str], data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(endpoints))
    fewer = [name for name in endpoints if name != gone]
    before = [endpoints[i] for i in ranking(cid, [seed(name) for name in endpoints]) if endpoints[i] != gone]
    after = [fewer[i] for i in ranking(cid, [seed(name) for name in fewer])] if fewer else []
    assert before == after


@pytest.mark.parametrize("count", [2, 3, 5, 8, 16])
def test_an_added_endpoint_takes_its_share_and_moves_nothing_else(count: int) -> None:
    endpoints = [f"10.1.0.{n}:6666" for n in range(count)]
    more = [*endpoints, "10.2.0.1:6666"]
    moved = 0
    for cid in CHUNKS:
        before, after = owner(cid, endpoints), owner(cid, more)
        assert after in (before, "10.2.0.1:6666")
        moved += before != after
    share = len(CHUNKS) / (count + 1)
    assert abs(moved - share) < 5 * (share * count / (count + 1)) ** 0.5


@pytest.mark.parametrize("count", [2, 3, 5, 8, 16, 32])
def test_chunks_are_spread_evenly(count: int) -> None:
    endpoints = [f"node{n // 4}:666{n % 4}" for n in range(count)]
    owners = Counter(owner(cid, endpoints) for cid in CHUNKS)
    share = len(CHUNKS) / count
    # Chi-square with count - 1 degrees of freedom: mean count - 1, variance twice that.
    chi = sum((owners[name] - share) ** 2 / share for name in endpoints)
    assert chi < (count - 1) + 5 * (2 * (count - 1)) ** 0.5


def test_the_second_in_rank_is_spread_evenly_too_so_a_lost_endpoint_burdens_all_others() -> None:
    endpoints = [f"node{n}:6666" for n in range(5)]
    seeds = [seed(name) for name in endpoints]
    heirs = Counter(second for first, second, *_ in (ranking(cid, seeds) for cid in CHUNKS) if first == 0)
    assert len(heirs) == 4
    assert max(heirs.values()) < 2 * min(heirs.values())


def test_without_endpoints_there_is_no_ranking() -> None:
    with pytest.raises(ValueError, match="at least one endpoint, got none"):
        ranking(bytes(16), [])
