"""The form of a chunk on the stores: pieces of about 1 MiB, and the manifest that makes them one chunk.

The manifest is written last. It alone makes a chunk visible, and it says what every piece must be, so a half-written,
mixed or damaged chunk can only be a miss.

Manifest, big endian: magic `KVS1`, checksum algorithm u8, checksum of the manifest's rest u64, then
nonce 8 bytes, length u64, piece size u32, number of pieces u32, number of endpoints u8, their ids u32 each,
a checksum u64 for each piece, identity (u16 length, bytes).
Piece i lies on endpoint number `i mod endpoints` of that list.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from kvstrata.l2.checksum import ALGORITHMS, PREFERRED, Buffer

MAGIC = b"KVS1"
NONCE_BYTES = 8
MAX_PIECES = 65536
MAX_ENDPOINTS = 255
MAX_IDENTITY_BYTES = 65535
_HEAD = struct.Struct(">4sBQ")
_BODY = struct.Struct(">8sQIIB")


class LayoutError(ValueError):
    """Bytes that are no manifest of ours, or one that contradicts itself."""


class ForeignError(LayoutError):
    """A manifest of another version, or one whose checksum algorithm this process lacks: others may well read it."""


@dataclass(frozen=True)
class Manifest:
    """What a whole chunk consists of."""

    identity: bytes
    """What the chunk is, in full: guards against two chunks with the same id, and lets a listing name it."""
    nonce: bytes
    """Of the writing that made these pieces."""
    length: int
    """Of the chunk, in bytes."""
    piece_bytes: int
    """Of every piece but the last."""
    endpoints: tuple[int, ...]
    """Ids (placement.endpoint_id) of the endpoints that hold the pieces, in turn."""
    algorithm: int
    checksums: tuple[int, ...]
    """One for each piece."""

    def encode(self) -> bytes:
        """Return the bytes of field `m`."""
        pieces, places = len(self.checksums), len(self.endpoints)
        body = _BODY.pack(self.nonce, self.length, self.piece_bytes, pieces, places)
        body += struct.pack(f">{places}I{pieces}Q", *self.endpoints, *self.checksums)
        body += struct.pack(">H", len(self.identity)) + self.identity
        return _HEAD.pack(MAGIC, self.algorithm, ALGORITHMS[self.algorithm](body)) + body

    @classmethod
    def decode(cls, data: bytes) -> Manifest:
        """Return the manifest that `encode` made.

        Raises:
            LayoutError: for anything else.
            ForeignError: which is one, for what another version or installation may have written.
        """
        try:
            magic, algorithm, checksum = _HEAD.unpack_from(data)
            body = data[_HEAD.size :]
            if magic[:3] != MAGIC[:3]:
                raise LayoutError(f"magic {magic!r}")
            if magic != MAGIC or algorithm not in ALGORITHMS:
                raise ForeignError(f"magic {magic!r}, checksum algorithm {algorithm}")
            if ALGORITHMS[algorithm](body) != checksum:
                raise LayoutError("checksum of the manifest does not match")
            nonce, length, piece_bytes, pieces, places = _BODY.unpack_from(body)
            at = _BODY.size
            numbers = struct.unpack_from(f">{places}I{pieces}Q", body, at)
            at += 4 * places + 8 * pieces
            (size,) = struct.unpack_from(">H", body, at)
            identity = body[at + 2 :]
        except struct.error as error:
            raise LayoutError(f"{len(data)} bytes: {error}") from error
        if size != len(identity) or not places or not 0 < pieces == piece_count(length, piece_bytes) <= MAX_PIECES:
            raise LayoutError("its numbers contradict each other")
        return cls(identity, nonce, length, piece_bytes, numbers[:places], algorithm, numbers[places:])

    def piece(self, index: int) -> slice:
        """Return which bytes of the chunk piece `index` is."""
        return piece_slice(self.length, self.piece_bytes, index)

    def place(self, index: int) -> int:
        """Return the id of the endpoint that holds piece `index`."""
        return self.endpoints[index % len(self.endpoints)]

    def matches(self, index: int, data: Buffer) -> bool:
        """Tell whether `data` is piece `index`."""
        return ALGORITHMS[self.algorithm](data) == self.checksums[index]


def piece_count(length: int, piece_bytes: int) -> int:
    """Return the number of pieces of a chunk of `length` bytes; 0 for an empty chunk, -1 for a piece size of 0."""
    return -(-length // piece_bytes) if piece_bytes > 0 else -1


def piece_slice(length: int, piece_bytes: int, index: int) -> slice:
    """Return the bytes of a chunk that piece `index` takes."""
    return slice(index * piece_bytes, min(length, (index + 1) * piece_bytes))


def checked_piece_count(length: int, piece_bytes: int) -> int:
    """Return the number of pieces of a chunk that is about to be written.

    Raises:
        LayoutError: if the chunk is empty or would have more than 65,536 pieces.
    """
    count = piece_count(length, piece_bytes)
    if not 0 < count <= MAX_PIECES:
        raise LayoutError(f"{length} bytes in pieces of {piece_bytes}; allowed: 1 to {MAX_PIECES} pieces")
    return count


def check_fits(identity: bytes, places: int) -> None:
    """Raise LayoutError when no manifest can hold this identity, or name so many endpoints."""
    if len(identity) > MAX_IDENTITY_BYTES:
        raise LayoutError(f"an identity of {len(identity)} bytes; allowed: up to {MAX_IDENTITY_BYTES}")
    if not 0 < places <= MAX_ENDPOINTS:
        raise LayoutError(f"{places} endpoints; allowed: 1 to {MAX_ENDPOINTS}")


def checksum_of(piece: Buffer) -> int:
    """Return the checksum of a piece, by the algorithm that this process writes with."""
    return ALGORITHMS[PREFERRED](piece)
