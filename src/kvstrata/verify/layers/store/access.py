"""Who may come in, and from where; and that what is written comes back."""

from __future__ import annotations

import hashlib
import secrets
import time
from typing import cast

import redis

from kvstrata.cluster import Store
from kvstrata.verify import resp
from kvstrata.verify.check import Json, UnmetError
from kvstrata.verify.context import Peer
from kvstrata.verify.layers.store.look import TIMEOUT_S
from kvstrata.verify.shell import Shell

VALUE_BYTES = 1 << 20
# If the verifier dies between writing and deleting, the store forgets the key by itself.
KEY_TTL_S = 120
# What Kvrocks, Redis and the system say of a store, its memory or its drive that has no room.
_FULL = ("max-db-size", "when used memory >", "no space left", "misconf")


class RefusedError(UnmetError):
    """The store answers, and refuses to write."""

    @property
    def full(self) -> bool:
        """Whether it says that it has no room."""
        said = str(self).lower()
        return any(words in said for words in _FULL)


def auth(shell: Shell, store: Store) -> str:
    """The right password is accepted, a wrong one and none are refused."""
    wrong = secrets.token_hex(16)
    for password, described in ((None, "no password"), (wrong, "a wrong password")):
        try:
            with resp.connection(shell, store, password, TIMEOUT_S) as client:
                client.ping()
        except redis.AuthenticationError:
            continue
        raise UnmetError(f"{described} was accepted")
    _ping(shell, store)
    return "right password accepted, a wrong one and none refused"


def from_peer(peer: Peer, store: Store) -> str:
    """Another node gets an answer too."""
    started = time.monotonic()
    _ping(peer.shell, store)
    return f"answered {peer.node.name} in {(time.monotonic() - started) * 1000:.0f} ms"


def _ping(shell: Shell, store: Store) -> None:
    with resp.authenticated(shell, store, TIMEOUT_S) as client:
        client.ping()


class RoundTrip:
    """1 MiB there and back, made once; more than one check looks at how it went."""

    def __init__(self, shell: Shell, store: Store) -> None:
        """Nothing is written yet."""
        self._shell, self._store = shell, store
        self.numbers: dict[str, Json] = {}
        self._said: str | None = None
        self._failure: UnmetError | None = None

    def __call__(self) -> str:
        """How it went; raises UnmetError, RefusedError where the store does not write."""
        if self._said is None and self._failure is None:
            try:
                self._said = self._travel()
            except UnmetError as error:
                self._failure = error
        if self._failure is not None:
            raise self._failure
        return cast(str, self._said)

    def refusal(self) -> RefusedError | None:
        """What the store said if it had no room for it."""
        try:
            self()
        except RefusedError as error:
            return error if error.full else None
        except UnmetError:
            return None
        return None

    def _travel(self) -> str:
        value = secrets.token_bytes(VALUE_BYTES)
        key = f"kvstrata:verify:{secrets.token_hex(16)}"
        with resp.authenticated(self._shell, self._store, TIMEOUT_S) as client:
            started = time.monotonic()
            try:
                client.hset(key, "value", cast(str, value))
            except redis.ResponseError as error:
                raise RefusedError(f"it does not write: {error}") from error
            try:
                written = time.monotonic()
                client.expire(key, KEY_TTL_S)
                asked = time.monotonic()
                back = cast(bytes | None, client.hget(key, "value"))
                read = time.monotonic()
            finally:
                deleted = client.delete(key)
            left = client.exists(key)
        if back is None:
            raise UnmetError("the value just written is not there")
        want, got = hashlib.sha256(value).hexdigest(), hashlib.sha256(back).hexdigest()
        if want != got:
            raise UnmetError(f"{len(back)} bytes came back with sha256 {got[:16]}..., written was {want[:16]}...")
        if deleted != 1 or left:
            raise UnmetError(f"the key {key} could not be deleted")
        write_ms, read_ms = (written - started) * 1000, (read - asked) * 1000
        self.numbers |= {"write_ms": round(write_ms, 2), "read_ms": round(read_ms, 2), "bytes": VALUE_BYTES}
        return f"1 MiB written in {write_ms:.0f} ms, read in {read_ms:.0f} ms, sha256 equal, deleted"
