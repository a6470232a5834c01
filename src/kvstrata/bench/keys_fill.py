"""Fill a store with many tiny chunks, exactly as the Tier would have left them, only faster: for `bench keys`."""

from __future__ import annotations

import time

from kvstrata.l2.checksum import PREFERRED
from kvstrata.l2.layout import NONCE_BYTES, Manifest, checksum_of
from kvstrata.l2.names import (
    INDEX_REGISTRY,
    MANIFEST_FIELD,
    IndexName,
    chunk_id,
    chunk_key,
    piece_field,
)
from kvstrata.l2.placement import endpoint_id
from kvstrata.l2.wire import Connection, ReplyError, command

NAMESPACE = "kvs-keys"
CHUNK_BYTES = 64
OLDEST = 1_600_000_000
"""Access time of chunk 0, in unix seconds; each chunk is a second younger than the one before."""
_BATCH = 1000
_DEADLINE_S = 60.0


def identity(number: int) -> bytes:
    """Return what chunk `number` is called."""
    return b"keys/%d" % number


def fill(host: str, port: int, keys: int) -> float:
    """Write chunks 0 to `keys`, each one piece of CHUNK_BYTES; return the seconds that took.

    Raises:
        ReplyError, WireError: the store refused something, or did not answer.
    """
    began = time.monotonic()
    connection = Connection((host, port), _DEADLINE_S, _DEADLINE_S)
    endpoint = endpoint_id(f"{host}:{port}")
    index = IndexName(NAMESPACE, CHUNK_BYTES)
    try:
        connection.deadline = time.monotonic() + _DEADLINE_S
        connection.call(b"SADD", INDEX_REGISTRY, index.registered)
        for start in range(0, keys, _BATCH):
            numbers = range(start, min(keys, start + _BATCH))
            cids = [chunk_id(identity(number)) for number in numbers]
            stamps = [word for number, cid in zip(numbers, cids, strict=True) for word in (str(OLDEST + number), cid)]
            commands = [command(b"ZADD", index.key, *stamps)]
            commands += [_chunk(number, cid, endpoint) for number, cid in zip(numbers, cids, strict=True)]
            connection.deadline = time.monotonic() + _DEADLINE_S
            for reply in connection.pipeline([b"".join(commands)] + [b""] * (len(commands) - 1)):
                if isinstance(reply, ReplyError):
                    raise reply
    finally:
        connection.close()
    return time.monotonic() - began


def _chunk(number: int, cid: bytes, endpoint: int) -> bytes:
    nonce = number.to_bytes(NONCE_BYTES, "big")
    piece = nonce * (CHUNK_BYTES // NONCE_BYTES)
    manifest = Manifest(
        identity(number), nonce, CHUNK_BYTES, CHUNK_BYTES, (endpoint,), PREFERRED, (checksum_of(piece),)
    )
    key = chunk_key(NAMESPACE, cid)
    return command(b"HSET", key, piece_field(nonce, 0), piece, MANIFEST_FIELD, manifest.encode())
