"""Where a KV chunk lives: rendezvous hashing of keys over store endpoints.

Every node computes the same owner for a key without talking to anyone, and removing one of N endpoints moves
only that endpoint's share (Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def owner(key: bytes, endpoints: Sequence[str]) -> int:
    """Return the index of the endpoint that owns `key`.

    The endpoints' names decide, not their order, so nodes may list them differently.

    Raises:
        ValueError: if there is no endpoint.
    """
    if not endpoints:
        raise ValueError("rendezvous hashing needs at least one endpoint, got none")
    return max(range(len(endpoints)), key=lambda i: (_weight(key, endpoints[i]), endpoints[i]))


def _weight(key: bytes, endpoint: str) -> bytes:
    # The endpoint goes into the key slot, so that no concatenation of the two can be ambiguous.
    return hashlib.blake2b(key, key=hashlib.blake2b(endpoint.encode(), digest_size=32).digest(), digest_size=8).digest()
