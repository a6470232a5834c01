"""What somebody else may do to a chunk that lies on a store, for each adapter's way of keeping it there."""

from __future__ import annotations

from kvstrata.bench.faults.servers import StoreServer
from kvstrata.bench.l2_driver import make_key
from kvstrata.l2.names import CHUNK_PREFIX, INDEX_REGISTRY, MANIFEST_FIELD, IndexName, chunk_id, chunk_key

NAMESPACE = "kvs-bench"


class Tamper:
    """Changes to chunks, by name, on one store."""

    def __init__(self, server: StoreServer, adapter: str) -> None:
        """Change what `adapter` stored on `server`."""
        self._server = server
        self._adapter = adapter

    def delete(self, name: str) -> None:
        """Delete the chunk."""
        self._server.ask("DEL", self.key(name))

    def corrupt(self, name: str) -> None:
        """Turn one bit in the middle of the chunk, or of its middle piece."""
        self._change(name, lambda value: value[: len(value) // 2] + _turned(value[len(value) // 2 :]))

    def shorten(self, name: str) -> None:
        """Cut the last byte off the chunk, or off its middle piece."""
        self._change(name, lambda value: value[:-1])

    def lengthen(self, name: str) -> None:
        """Add a byte to the chunk, or to its middle piece."""
        self._change(name, lambda value: value + b"x")

    def corrupt_manifest(self, name: str) -> None:
        """Turn one bit in the middle of the manifest."""
        key = self.key(name)
        value = _bytes(self._server.ask("HGET", key, MANIFEST_FIELD))
        middle = len(value) // 2
        self._server.ask("HSET", key, MANIFEST_FIELD, value[:middle] + _turned(value[middle:]))

    def key(self, name: str) -> bytes:
        """Return the key of the chunk, which exists."""
        key = make_key(name)
        if self._adapter == "kvstrata":
            from kvstrata.l2.adapter import identity_of

            return chunk_key(NAMESPACE, chunk_id(identity_of(key)))
        found = [k for k in all_keys(self._server, b"*") if key.chunk_hash.hex().encode() in k]
        if len(found) != 1:
            raise RuntimeError(f"{len(found)} keys for chunk {name}")
        return found[0]

    def _change(self, name: str, change: object) -> None:
        key = self.key(name)
        if self._adapter == "kvstrata":
            pieces = sorted(field for field in _list(self._server.ask("HKEYS", key)) if field != MANIFEST_FIELD)
            field = pieces[len(pieces) // 2]
            value = _bytes(self._server.ask("HGET", key, field))
            self._server.ask("HSET", key, field, change(value))  # type: ignore[operator]
        else:
            value = _bytes(self._server.ask("GET", key))
            self._server.ask("SET", key, change(value))  # type: ignore[operator]


def all_keys(server: StoreServer, pattern: bytes) -> list[bytes]:
    """Return the keys that match a pattern."""
    found: set[bytes] = set()
    cursor: bytes = b"0"
    while True:
        reply = server.ask("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
        cursor, keys = _list(reply)
        found.update(_list(keys))
        if cursor == b"0":
            return sorted(found)


def indexed(server: StoreServer) -> dict[IndexName, list[bytes]]:
    """Return the chunk ids of every index."""
    names = [IndexName.parse(member) for member in _list(server.ask("SMEMBERS", INDEX_REGISTRY))]
    return {name: _list(server.ask("ZRANGE", name.key, 0, -1)) for name in names if name}


def used_bytes(server: StoreServer) -> int:
    """Return the use as the adapter reckons it: from the cardinality of the indexes."""
    names = [IndexName.parse(member) for member in _list(server.ask("SMEMBERS", INDEX_REGISTRY))]
    return sum(int(str(server.ask("ZCARD", name.key))) * name.stored_bytes for name in names if name)


def chunk_keys(server: StoreServer) -> list[bytes]:
    """Return the keys of all chunks of kvstrata's, whole or not."""
    return all_keys(server, CHUNK_PREFIX + b"*")


def _turned(value: bytes) -> bytes:
    return bytes([value[0] ^ 1]) + value[1:]


def _bytes(reply: object) -> bytes:
    if not isinstance(reply, bytes):
        raise TypeError(f"expected a value, got {reply!r}")
    return reply


def _list(reply: object) -> list:  # type: ignore[type-arg]
    if not isinstance(reply, list):
        raise TypeError(f"expected a list, got {reply!r}")
    return reply
