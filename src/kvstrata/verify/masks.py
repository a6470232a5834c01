"""Passwords out of what is reported, whatever brought them there: a node's error, a file it prints."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from kvstrata.cluster import Cluster
from kvstrata.verify.check import Check, Json

MASK = "********"
# A shorter one is part of ordinary words: masking them would hide the report, not the password.
SHORTEST = 6


def passwords(cluster: Cluster) -> tuple[str, ...]:
    """Return every password of the inventory that can be told from text, the longest first."""
    found = {store.password for node in cluster.nodes for store in node.stores}
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


def _text(text: str, secrets: Collection[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, MASK)
    return text


def _value(value: Json, secrets: Collection[str]) -> Json:
    if isinstance(value, str):
        return _text(value, secrets)
    if isinstance(value, list):
        return [_value(item, secrets) for item in value]
    if isinstance(value, dict):
        return {_text(name, secrets): _value(item, secrets) for name, item in value.items()}
    return value
