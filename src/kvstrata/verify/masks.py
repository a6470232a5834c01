"""Passwords out of what is reported, whatever brought them there: a node's error, a file it prints."""

from __future__ import annotations

import functools
from collections.abc import Collection
from dataclasses import replace

from kvstrata.cluster import Cluster
from kvstrata.verify.check import Check, Json
from kvstrata.verify.document import Measured

MASK = "********"
# A shorter one is part of ordinary words: masking them would hide the report, not the password.
SHORTEST = 6


def passwords(cluster: Cluster) -> tuple[str, ...]:
    """Return every password and API key of the site that can be told from text, the longest first."""
    found = {store.password for node in cluster.nodes for store in node.stores}
    found |= {key.value for key in (cluster.edge.keys if cluster.edge else ())}
    return tuple(sorted((one for one in found if len(one) >= SHORTEST), key=len, reverse=True))


def masked(check: Check, secrets: Collection[str]) -> Check:
    """Return the check with a mask in place of every secret."""
    data = _value(check.data, secrets)
    return replace(
        check,
        what=_text(check.what, secrets),
        expected=_text(check.expected, secrets),
        seen=_text(check.seen, secrets),
        hint=_text(check.hint, secrets),
        data=data if isinstance(data, dict) else {},
    )


def masked_tables(tables: Measured, secrets: Collection[str]) -> Measured:
    """Return the rows of raw samples, which hold errors in nodes' own words, masked as well."""
    return {name: [_row(row, secrets) for row in rows] for name, rows in tables.items()}


def _row(row: dict[str, Json], secrets: Collection[str]) -> dict[str, Json]:
    return {_text(name, secrets): _value(value, secrets) for name, value in row.items()}


def _text(text: str, secrets: Collection[str]) -> str:
    # A large site has thousands of passwords and ten times as many checks: almost no text holds the start of any.
    starts = _starts(tuple(secrets))
    if not any(text[at : at + SHORTEST] in starts for at in range(len(text) - SHORTEST + 1)):
        return text
    for secret in secrets:
        text = text.replace(secret, MASK)
    return text


@functools.lru_cache(maxsize=4)
def _starts(secrets: tuple[str, ...]) -> frozenset[str]:
    return frozenset(secret[:SHORTEST] for secret in secrets)


def _value(value: Json, secrets: Collection[str]) -> Json:
    if isinstance(value, str):
        return _text(value, secrets)
    if isinstance(value, list):
        return [_value(item, secrets) for item in value]
    if isinstance(value, dict):
        return {_text(name, secrets): _value(item, secrets) for name, item in value.items()}
    return value
