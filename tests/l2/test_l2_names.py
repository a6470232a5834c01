from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstrata.l2.names import (
    IndexName,
    checked_namespace,
    chunk_id,
    chunk_key,
    namespace_of,
    parse_chunk_key,
    piece_field,
)

namespaces = st.from_regex(r"[A-Za-z0-9_.-]{1,64}", fullmatch=True)


@pytest.mark.parametrize(
    ("identity", "cid"),
    [
        (b"", "cae66941d9efbd404e4d88758ea67670"),
        (b"abc", "cf4ab791c62b8d2b2109c90275287816"),
        (b"\xff" * 1000, "261080b9c1228dfc4c48953527b9900f"),
    ],
)
def test_chunk_ids_never_change_for_data_on_drives_depends_on_them(identity: bytes, cid: str) -> None:
    assert chunk_id(identity).hex() == cid


def test_namespaces_of_identities_never_change_for_data_on_drives_depends_on_them() -> None:
    assert namespace_of({}) == "kvs-44136fa355b3678a"
    identity = {"model": "meta/Llama", "dtype": "bf16", "tp": 2, "salt": None, "x": 1.5, "ä": ["ü"]}
    assert namespace_of(identity) == "kvs-6996049870b569e1"
    assert namespace_of(dict(reversed(identity.items()))) == "kvs-6996049870b569e1"


def test_keys_and_fields_never_change_for_data_on_drives_depends_on_them() -> None:
    assert chunk_key("ns-1.x", bytes(range(16))) == b"kvs:ns-1.x:000102030405060708090a0b0c0d0e0f"
    assert piece_field(b"nonce678", 12) == b"6e6f6e6365363738:12"
    assert IndexName("ns", 5).key == b"kvsx:ns:5"
    assert IndexName("ns", 5).registered == b"ns:5"


values = st.one_of(st.integers(), st.text(), st.booleans(), st.none())


@given(st.dictionaries(st.text(), values, max_size=5), st.text(), values)
def test_any_changed_value_of_an_identity_is_another_namespace(
    identity: dict[str, object], name: str, value: object
) -> None:
    changed = {**identity, name: value}
    same = json.dumps(identity, sort_keys=True) == json.dumps(changed, sort_keys=True)
    assert (namespace_of(identity) == namespace_of(changed)) == same
    assert checked_namespace(namespace_of(identity))


@given(namespaces, st.binary(min_size=16, max_size=16))
def test_a_chunk_key_is_read_back(namespace: str, cid: bytes) -> None:
    assert parse_chunk_key(chunk_key(namespace, cid)) == (namespace, cid)


@given(st.one_of(st.binary(max_size=60), st.from_regex(rb"kvs:.*", fullmatch=True)))
def test_a_key_that_is_read_is_exactly_one_that_is_written(key: bytes) -> None:
    parsed = parse_chunk_key(key)
    assert parsed is None or chunk_key(*parsed) == key


@pytest.mark.parametrize(
    "key",
    [
        b"kvs:ns:00010203 0405060708090a0b0c0d0e0",
        b"kvs:ns:000102030405060708090A0B0C0D0E0F",
        b"kvs::000102030405060708090a0b0c0d0e0f",
        b"kvs:n s:000102030405060708090a0b0c0d0e0f",
        b"kvsx:ns:000102030405060708090a0b0c0d0e0f",
        b"kvs:ns:000102030405060708090a0b0c0d0e0f\n",
    ],
)
def test_a_key_of_another_program_is_left_alone(key: bytes) -> None:
    assert parse_chunk_key(key) is None


@given(namespaces, st.integers(1, 10**18 - 1))
def test_an_index_is_read_back_from_the_registry(namespace: str, size: int) -> None:
    assert IndexName.parse(IndexName(namespace, size).registered) == IndexName(namespace, size)


@given(st.one_of(st.binary(max_size=40), st.from_regex(rb"[a-z]{1,3}:[0-9 _]{0,25}", fullmatch=True)))
def test_a_member_that_is_read_is_exactly_one_that_is_written(member: bytes) -> None:
    parsed = IndexName.parse(member)
    assert parsed is None or parsed.registered == member


@pytest.mark.parametrize(
    "member", [b"", b"ns", b"ns:", b":5", b"ns:-5", b"ns:0", b"ns:05", b"ns:5 ", "ns:٣".encode(), b"ns:" + b"9" * 5000]
)
def test_a_member_that_names_no_index_is_passed_over(member: bytes) -> None:
    assert IndexName.parse(member) is None


@pytest.mark.parametrize("namespace", ["", "a b", "a:b", "ü", "x" * 65, "a\n"])
def test_a_namespace_that_cannot_be_part_of_a_key_is_refused(namespace: str) -> None:
    with pytest.raises(ValueError, match=r"namespace is .* allowed: 1 to 64 of"):
        checked_namespace(namespace)
