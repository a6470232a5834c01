"""Where a KV chunk lives: rendezvous hashing of chunk ids over store endpoints.

Every node computes the same order for a key without talking to anyone, and removing one of N endpoints moves
only that endpoint's share (Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def seed(endpoint: str) -> bytes:
    """Return the 32-byte hash key of an endpoint's name; computed once, used for every chunk."""
    return hashlib.blake2b(endpoint.encode(), digest_size=32).digest()


def ranking(key: bytes, seeds: Sequence[bytes]) -> list[int]:
    """Return the indexes of all endpoints, the owner of `key` first, then those that would follow it.

    The endpoints' names decide, not their order, so nodes may list them differently.

    Raises:
        ValueError: if there is no endpoint.
    """
    if not seeds:
        raise ValueError("rendezvous hashing needs at least one endpoint, got none")
    # The endpoint goes into the hash's key slot, so that no concatenation of the two can be ambiguous.
    weights = [(hashlib.blake2b(key, key=seed, digest_size=8).digest(), seed) for seed in seeds]
    return sorted(range(len(seeds)), key=weights.__getitem__, reverse=True)


def endpoint_id(endpoint: str) -> int:
    """Return the 32-bit id by which manifests name an endpoint, the same on every node."""
    return int.from_bytes(seed(endpoint)[:4], "big")
