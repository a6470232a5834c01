"""Rendezvous placement: the same everywhere, even, and minimal movement."""

from collections import Counter

import pytest

from kvstrata.node.placement import owner

ENDPOINTS = ["10.77.0.11:6666", "10.77.0.11:6667", "10.77.0.12:6666", "10.77.0.12:6667"]
PLACED = [0, 1, 0, 0, 2, 1, 0, 1, 3, 1, 1, 0]
KEYS = [f"key-{n}".encode() for n in range(4000)]


def test_the_owner_does_not_depend_on_the_order_of_the_endpoints() -> None:
    backwards = ENDPOINTS[::-1]
    for key in KEYS[:500]:
        assert ENDPOINTS[owner(key, ENDPOINTS)] == backwards[owner(key, backwards)]


def test_every_endpoint_gets_about_its_share() -> None:
    shares = Counter(owner(key, ENDPOINTS) for key in KEYS)
    assert set(shares) == {0, 1, 2, 3}
    assert all(850 <= n <= 1150 for n in shares.values()), shares


def test_losing_an_endpoint_moves_only_its_own_keys() -> None:
    remaining = ENDPOINTS[:-1]
    for key in KEYS:
        before = ENDPOINTS[owner(key, ENDPOINTS)]
        if before in remaining:
            assert remaining[owner(key, remaining)] == before


def test_a_known_placement_never_changes() -> None:
    # A change here would turn every stored chunk of every cluster into a miss.
    assert [owner(key, ENDPOINTS) for key in KEYS[:12]] == PLACED


def test_no_endpoint_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one endpoint, got none"):
        owner(b"k", [])
