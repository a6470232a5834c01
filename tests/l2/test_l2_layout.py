from __future__ import annotations

import zlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstrata.l2.checksum import ALGORITHMS, CRC32, PREFERRED
from kvstrata.l2.layout import (
    MAX_ENDPOINTS,
    MAX_IDENTITY_BYTES,
    MAX_PIECES,
    LayoutError,
    Manifest,
    check_fits,
    checked_piece_count,
    checksum_of,
    piece_count,
    piece_slice,
)
from tests.l2.scripted import pattern

CHUNK = bytes(range(256)) * 40
KNOWN = Manifest(
    identity=b"identity",
    nonce=b"nonce678",
    length=len(CHUNK),
    piece_bytes=4096,
    endpoints=(1, 0xFFFFFFFF),
    algorithm=CRC32,
    checksums=tuple(zlib.crc32(CHUNK[at : at + 4096]) for at in range(0, len(CHUNK), 4096)),
)
KNOWN_BYTES = bytes.fromhex(
    "4b565331010000000081458d446e6f6e6365363738000000000000280000001000000000030200000001ffffffff"
    "00000000a291208200000000a2912082000000009f5edd5800086964656e74697479"
)

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    piece_bytes = draw(st.integers(1, 2**32 - 1))
    pieces = draw(st.integers(1, 50))
    length = piece_bytes * (pieces - 1) + draw(st.integers(1, piece_bytes))
    return Manifest(
        identity=draw(st.binary(max_size=300)),
        nonce=draw(st.binary(min_size=8, max_size=8)),
        length=length,
        piece_bytes=piece_bytes,
        endpoints=tuple(draw(st.lists(u32, min_size=1, max_size=255))),
        algorithm=draw(st.sampled_from(sorted(ALGORITHMS))),
        checksums=tuple(draw(st.lists(u64, min_size=pieces, max_size=pieces))),
    )


def test_the_encoding_never_changes_for_data_on_drives_depends_on_it() -> None:
    assert KNOWN.encode() == KNOWN_BYTES
    assert Manifest.decode(KNOWN_BYTES) == KNOWN


@given(manifests())
def test_a_manifest_comes_back_as_it_was_written(manifest: Manifest) -> None:
    assert Manifest.decode(manifest.encode()) == manifest


def test_the_greatest_manifest_comes_back_as_it_was_written() -> None:
    greatest = replace(
        KNOWN,
        identity=b"i" * MAX_IDENTITY_BYTES,
        endpoints=tuple(range(MAX_ENDPOINTS)),
        piece_bytes=2**32 - 1,
        length=(2**32 - 1) * MAX_PIECES,
        checksums=(2**64 - 1,) * MAX_PIECES,
    )
    assert Manifest.decode(greatest.encode()) == greatest


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_no_changed_bit_goes_unnoticed(algorithm: int) -> None:
    data = replace(KNOWN, algorithm=algorithm).encode()
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(LayoutError):
            Manifest.decode(bytes(changed))


def test_no_missing_and_no_additional_byte_goes_unnoticed() -> None:
    for size in range(len(KNOWN_BYTES)):
        with pytest.raises(LayoutError):
            Manifest.decode(KNOWN_BYTES[:size])
        with pytest.raises(LayoutError):
            Manifest.decode(KNOWN_BYTES[size + 1 :])
    with pytest.raises(LayoutError):
        Manifest.decode(KNOWN_BYTES + b"\0")


@given(st.binary(max_size=200))
def test_noise_is_no_manifest(data: bytes) -> None:
    with pytest.raises(LayoutError):
        Manifest.decode(data)


@settings(max_examples=300)
@given(st.binary(max_size=120))
def test_noise_under_a_good_checksum_is_no_manifest_or_one_without_contradiction(body: bytes) -> None:
    data = b"KVS1\1" + zlib.crc32(body).to_bytes(8, "big") + body
    try:
        manifest = Manifest.decode(data)
    except LayoutError:
        return
    assert manifest.encode() == data
    assert len(manifest.checksums) == piece_count(manifest.length, manifest.piece_bytes) > 0


@pytest.mark.parametrize(
    "contradiction",
    [
        {"length": len(CHUNK) - 3 * 4096, "checksums": ()},
        {"length": 4096 * 3 + 1},
        {"length": 4096 * 2},
        {"piece_bytes": 0},
        {"piece_bytes": 4095 * 2},
        {"endpoints": ()},
        {"length": 0, "checksums": ()},
        {"length": MAX_PIECES + 1, "piece_bytes": 1, "checksums": (0,) * (MAX_PIECES + 1)},
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(contradiction: dict[str, object]) -> None:
    broken = replace(KNOWN, **{"length": len(CHUNK), **contradiction})  # type: ignore[arg-type]
    if broken.length < 0:
        broken = replace(broken, length=0)
    with pytest.raises(LayoutError, match="contradict"):
        Manifest.decode(broken.encode())


def test_an_algorithm_this_process_lacks_is_refused() -> None:
    with pytest.raises(LayoutError, match="algorithm 77"):
        Manifest.decode(KNOWN_BYTES[:4] + b"\x4d" + KNOWN_BYTES[5:])


# -- pieces ------------------------------------------------------------------------------------------


@given(st.integers(1, 10**7), st.integers(1, 10**6))
def test_pieces_tile_the_chunk(length: int, piece_bytes: int) -> None:
    count = piece_count(length, piece_bytes)
    if count > 5000:
        piece_bytes += length // 5000
        count = piece_count(length, piece_bytes)
    at = 0
    for index in range(count):
        piece = piece_slice(length, piece_bytes, index)
        assert piece.start == at
        assert 0 < piece.stop - piece.start <= piece_bytes
        assert piece.stop - piece.start == piece_bytes or index == count - 1
        at = piece.stop
    assert at == length


@pytest.mark.parametrize(("length", "count"), [(1, 1), (4095, 1), (4096, 1), (4097, 2), (40960, 10)])
def test_the_number_of_pieces(length: int, count: int) -> None:
    assert piece_count(length, 4096) == checked_piece_count(length, 4096) == count


def test_what_no_manifest_can_hold_is_refused_before_anything_is_written() -> None:
    checked_piece_count(MAX_PIECES * 4096, 4096)
    check_fits(b"i" * MAX_IDENTITY_BYTES, MAX_ENDPOINTS)
    with pytest.raises(LayoutError, match="0 bytes in pieces of 4096; allowed: 1 to 65536 pieces"):
        checked_piece_count(0, 4096)
    with pytest.raises(LayoutError, match="allowed: 1 to 65536"):
        checked_piece_count(MAX_PIECES * 4096 + 1, 4096)
    with pytest.raises(LayoutError, match="65536 bytes; allowed: up to 65535"):
        check_fits(b"i" * (MAX_IDENTITY_BYTES + 1), 1)
    for places in (0, MAX_ENDPOINTS + 1):
        with pytest.raises(LayoutError, match="endpoints; allowed: 1 to 255"):
            check_fits(b"", places)


@given(manifests())
def test_pieces_go_round_the_endpoints_in_turn(manifest: Manifest) -> None:
    places = [manifest.place(index) for index in range(len(manifest.checksums))]
    for turn, endpoint in enumerate(manifest.endpoints):
        assert all(place == endpoint for place in places[turn :: len(manifest.endpoints)])


# -- checksums ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_a_piece_with_one_changed_bit_anywhere_does_not_match(algorithm: int) -> None:
    piece = pattern(4096)
    manifest = replace(KNOWN, algorithm=algorithm, checksums=(0, ALGORITHMS[algorithm](piece), 0))
    assert manifest.matches(1, piece)
    assert manifest.matches(1, memoryview(bytearray(piece)))
    assert not manifest.matches(0, piece)
    for at in range(0, 4096, 7):
        changed = bytearray(piece)
        changed[at] ^= 1 << at % 8
        assert not manifest.matches(1, changed)
    assert not manifest.matches(1, piece[:-1])


def test_a_piece_is_written_with_the_checksum_that_a_reader_computes() -> None:
    piece = pattern(1000)
    assert replace(KNOWN, algorithm=PREFERRED, checksums=(checksum_of(piece),)).matches(0, piece)


@pytest.mark.parametrize(("algorithm", "value"), [(1, 0xCBF43926), (2, 0xAE8B14860A799888)])
def test_the_algorithms_are_those_their_numbers_stand_for(algorithm: int, value: int) -> None:
    if algorithm not in ALGORITHMS:
        pytest.skip("awscrt, which brings CRC-64/NVME, is not installed: nodes have it with LMCache")
    assert ALGORITHMS[algorithm](b"123456789") == value
