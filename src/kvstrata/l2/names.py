"""How things are called on an endpoint: one hash for each chunk, and the index that knows what is there.

| key | type | holds |
|---|---|---|
| `kvs:NS:CID` | hash | a chunk: its manifest in field `m`, its pieces in fields `NONCE:I` |
| `kvsx:NS:BYTES` | sorted set | chunk ids of that namespace that take BYTES here, by last access (unix seconds) |
| `kvsx` | set | the `NS:BYTES` that have an index |
| `kvsn:NS` | string | JSON of what the namespace stands for: model, revision, types, versions |
| `kvsl` | string | lease of the one adapter that evicts on this endpoint |

A hash, because Kvrocks then answers EXISTS, TTL and DEL from its metadata without reading a value (docs/kvrocks.md).
Sorted sets by size, because then the bytes in use are `sum(ZCARD * BYTES)`: read from the store itself in constant
time, right after any restart of anything, with no counter that could drift.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

CHUNK_PREFIX = b"kvs:"
INDEX_PREFIX = b"kvsx:"
INDEX_REGISTRY = b"kvsx"
NAMESPACE_PREFIX = b"kvsn:"
LEASE = b"kvsl"
MANIFEST_FIELD = b"m"

CID_BYTES = 16
_NAMESPACE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_CHUNK_KEY = re.compile(rb"kvs:([A-Za-z0-9_.-]{1,64}):([0-9a-f]{32})")
# As it is written, so that two members never name one index, and of a length that int() takes.
_SIZE = re.compile(r"[1-9][0-9]{0,17}")


class IndexName(NamedTuple):
    """One index: the chunks of a namespace that take `stored_bytes` on the endpoint."""

    namespace: str
    stored_bytes: int

    @property
    def key(self) -> bytes:
        """Key of the sorted set."""
        return INDEX_PREFIX + self.registered

    @property
    def registered(self) -> bytes:
        """Its member in the registry `kvsx`."""
        return f"{self.namespace}:{self.stored_bytes}".encode()

    @classmethod
    def parse_all(cls, reply: object) -> list[IndexName]:
        """Return the indexes that a reply of the store's, all members of the registry, names."""
        members = reply if isinstance(reply, list) else []
        return [name for m in members if isinstance(m, bytes) and (name := cls.parse(m))]

    @classmethod
    def parse(cls, registered: bytes) -> IndexName | None:
        """Return the index that a member of the registry names, or None when it names none."""
        namespace, _, size = registered.decode("utf-8", "replace").rpartition(":")
        if not _SIZE.fullmatch(size) or not _NAMESPACE.fullmatch(namespace):
            return None
        return cls(namespace, int(size))


def checked_namespace(namespace: str) -> str:
    """Return `namespace`; ValueError when it cannot be part of a key."""
    if not _NAMESPACE.fullmatch(namespace):
        raise ValueError(f"namespace is {namespace!r}; allowed: 1 to 64 of A-Z, a-z, 0-9, '_', '.' and '-'")
    return namespace


def namespace_of(identity: Mapping[str, Any]) -> str:
    """Return the namespace of a cache identity: a change of any value gives another one.

    Canonical JSON (sorted keys, no spaces) under sha256, 64 bits of it: two of a site's few identities collide with
    probability 2**-64.
    """
    import json

    text = json.dumps(dict(identity), sort_keys=True, separators=(",", ":"), default=str)
    return f"kvs-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def chunk_id(identity: bytes) -> bytes:
    """Return the 16-byte id of a chunk from the bytes that identify it, the same on every node."""
    return hashlib.blake2b(identity, digest_size=CID_BYTES).digest()


def chunk_key(namespace: str, cid: bytes) -> bytes:
    """Return the key of a chunk's hash."""
    return b"%s%s:%s" % (CHUNK_PREFIX, namespace.encode(), cid.hex().encode())


def parse_chunk_key(key: bytes) -> tuple[str, bytes] | None:
    """Return namespace and id of the chunk that a key names, or None for any other key."""
    found = _CHUNK_KEY.fullmatch(key)
    return (found[1].decode(), bytes.fromhex(found[2].decode())) if found else None


def piece_field(nonce: bytes, index: int) -> bytes:
    """Return the field of a piece.

    The nonce belongs to one writing: two nodes that write the same chunk at once never mix their pieces.
    """
    return b"%s:%d" % (nonce.hex().encode(), index)
