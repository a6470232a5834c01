"""Store, find, load, compare and delete one chunk on each of some stores, the way LMCache's adapter does it.

`python -m kvstrata.l2.probe /etc/kvstrata/lmcache/server.json HOST:PORT ...`, as the user of lmcache.service, with
CREDENTIALS_DIRECTORY as that service has it. Prints one JSON object (`Visit` says what it tells of a store) and ends
with 0 when it looked, whatever it found; with 2 and a reason on stderr when it could not.

It goes through the same Tier, configuration and passwords as the running adapter, but in a namespace of its own, with
one Tier for each store, so that a chunk lies where it is wanted. No chunk of an engine is touched. The adapter's upkeep
is asleep here: it belongs to no node, and takes its first look only after the probe is long over.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from kvstrata.l2.config import EndpointConfig, TierConfig
from kvstrata.l2.names import INDEX_REGISTRY, IndexName, chunk_id, chunk_key
from kvstrata.l2.tier import Tier
from kvstrata.l2.wire import Connection, ReplyError, WireError, command
from kvstrata.l2.writing import Stored

CREDENTIAL = "stores"
CHUNK_BYTES = 4 << 20
WITHIN_S = 9.0
"""Seconds in which a probe ends, hanging stores or not."""
TTL_S = 120
"""Seconds after which the stores forget by themselves what a killed probe left."""
STALE_S = 60
"""Age in seconds from which the next probe of the node removes it: none that still runs is so old."""
_STEP_S = 1.0
# More patient than the adapter: a lost SYN, which TCP repeats after a second, is not the store's fault.
_CONNECT_S = 2.5
_STORE_S = 6.0
_LOAD_S = 5.0
_ASLEEP_S = 3600.0
_ROOM_TRIES = 3


@dataclass(frozen=True)
class Visit:
    """What came of one store."""

    ok: bool = False
    why: str = ""
    """Why not, in words; empty when all is well."""
    full: bool = False
    """The store has no room, or refuses writes."""
    took_s: Mapping[str, float] = field(default_factory=dict)
    """Seconds of each step that succeeded: `store`, `lookup`, `load`, `delete`."""


class _StopError(Exception):
    """The visit ends here; the message says why."""

    def __init__(self, why: str, full: bool = False) -> None:
        super().__init__(why)
        self.full = full


def namespace_of_node(name: str) -> str:
    """Return the namespace in which the node of that name probes: its own, so that nodes never meet."""
    return f"probe-{hashlib.blake2b(name.encode(), digest_size=6).hexdigest()}"


def settings(config: TierConfig, endpoint: EndpointConfig, namespace: str) -> TierConfig:
    """Return the adapter's configuration, narrowed to one store and to what a probe may take of time."""
    return replace(
        config,
        endpoints=(endpoint,),
        namespace=namespace,
        identity={},
        # On no node's side: it neither evicts nor takes the lease of the adapter that does.
        local_node="",
        placement="fleet",
        stripe_width=1,
        policy={"name": "all"},
        min_load_gbps=0.0,
        connect_timeout_s=_CONNECT_S,
        lookup_deadline_s=_CONNECT_S,
        store_deadline_s=_STORE_S,
        load_deadline_s=_LOAD_S,
        store_queue_bytes=max(config.store_queue_bytes, CHUNK_BYTES),
        tick_s=_ASLEEP_S,
    )


def visit(config: TierConfig, data: bytes) -> Visit:
    """Take one chunk through the one store of `config`; never raises, and leaves nothing there."""
    tier = Tier(config)
    took: dict[str, float] = {}
    try:
        chunk = _Chunk(tier, config, data)
        with chunk:
            for step in (chunk.store, chunk.lookup, chunk.load, chunk.delete):
                started = time.monotonic()
                step()
                took[step.__name__] = round(time.monotonic() - started, 6)
        return Visit(ok=True, took_s=took)
    except _StopError as stop:
        return Visit(why=str(stop), full=stop.full, took_s=took)
    except WireError as error:
        return Visit(why=f"it does not answer: {error}", took_s=took)
    except ReplyError as error:
        return Visit(why=f"the store answered: {error}", took_s=took)
    except Exception as error:  # one store's surprise must not cost what is known of the others
        return Visit(why=f"unexpected {type(error).__name__}: {error}", took_s=took)
    finally:
        tier.close()


class _Chunk:
    """One chunk from its announcement to its last trace; a context manager."""

    def __init__(self, tier: Tier, config: TierConfig, data: bytes) -> None:
        self._tier = tier
        self._endpoint = tier.endpoints[0]
        self._data = memoryview(data)
        self._identity = f"probe {os.uname().nodename} {os.urandom(16).hex()}".encode()
        self._cid = chunk_id(self._identity)
        self._key = chunk_key(config.namespace, self._cid)
        self._index = IndexName(config.namespace, len(data))

    def __enter__(self) -> _Chunk:
        connection = self._connection()
        try:
            sweep(connection, self._index.namespace, time.time() - STALE_S)
            # Both expire by themselves, and are there before anything is in them: a probe may be killed at any time.
            replies = connection.pipeline(
                [
                    command(b"HSET", self._key, b"probe", b"1"),
                    command(b"EXPIRE", self._key, TTL_S),
                    command(b"ZADD", self._index.key, b"NX", f"{time.time():.3f}", self._cid),
                    command(b"EXPIRE", self._index.key, TTL_S),
                ]
            )
        finally:
            connection.close()
        refused = [reply for reply in replies if isinstance(reply, ReplyError)]
        if refused:
            self._clear()
            raise _StopError(f"it refuses writes: {refused[0]}", full=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()

    def store(self) -> None:
        """Write it."""
        for left in range(_ROOM_TRIES, 0, -1):
            answer: list[Stored] = _await(lambda done: self._tier.store([(self._identity, self._data)], done), _STORE_S)
            why = answer[0].why
            # At its capacity a store has room again as soon as its keeper has looked, which it does every second.
            if why != "full" or left == 1:
                break
            time.sleep(_STEP_S)
        if why == "refused":
            raise _StopError(f"it refuses writes: {self._endpoint.writes_refused}", full=True)
        if why == "full":
            raise _StopError("its chunks take all of its capacity", full=True)
        if why != "stored":
            raise _StopError(f"the chunk was not stored: {self._reason(why)}")

    def lookup(self) -> None:
        """Find it."""
        found: list[list[bool]] = _await(lambda done: self._tier.lookup([[self._identity]], done), _CONNECT_S)
        if found != [[True]]:
            raise _StopError(f"the chunk just stored is not found{self._because()}")

    def load(self) -> None:
        """Read it back, and compare."""
        buffer = bytearray(len(self._data))
        loaded: list[bool] = _await(lambda done: self._tier.load([(self._identity, memoryview(buffer))], done), _LOAD_S)
        if loaded != [True]:
            reasons = [
                name for name, count in self._tier.counters.report().items() if name.startswith("load_") and count
            ]
            raise _StopError(f"the chunk just stored cannot be loaded ({', '.join(reasons)}){self._because()}")
        want, got = hashlib.sha256(self._data).hexdigest(), hashlib.sha256(buffer).hexdigest()
        if want != got:
            raise _StopError(f"what came back has sha256 {got[:16]}..., stored was {want[:16]}...")

    def delete(self) -> None:
        """Remove it."""
        self._tier.unlock([self._identity])
        gone: list[bool] = _await(lambda done: self._tier.delete([self._identity], done), _CONNECT_S)
        if gone != [True]:
            raise _StopError(f"the chunk could not be deleted{self._because()}")

    def _clear(self) -> None:
        """Remove every trace, as far as the store lets us; the rest expires."""
        try:
            connection = self._connection()
        except WireError:
            return
        try:
            connection.pipeline([command(b"UNLINK", self._key), command(b"ZREM", self._index.key, self._cid)])
            sweep(connection, self._index.namespace, 0.0)
        except (WireError, ReplyError):
            return
        finally:
            connection.close()

    def _connection(self) -> Connection:
        connection = self._endpoint.connect(time.monotonic() + _CONNECT_S)
        connection.deadline = time.monotonic() + _STEP_S
        return connection

    def _because(self) -> str:
        reason = self._endpoint.breaker.reason
        return f": {reason}" if reason else ""

    def _reason(self, why: str) -> str:
        return self._endpoint.breaker.reason or why


def sweep(connection: Connection, namespace: str, before: float) -> None:
    """Remove the chunks of a namespace that were stored before that unix time, and its indexes where they are empty.

    Raises:
        WireError: when the store does not answer in time.
        ReplyError: when it answers with an error.
    """
    for name in IndexName.parse_all(connection.call(b"SMEMBERS", INDEX_REGISTRY)):
        if name.namespace != namespace:
            continue
        old = connection.call(b"ZRANGEBYSCORE", name.key, b"-inf", f"({before:.3f}")
        for cid in old if isinstance(old, list) else []:
            if isinstance(cid, bytes):
                connection.pipeline(
                    [command(b"UNLINK", chunk_key(namespace, cid)), command(b"ZREM", name.key, cid)],
                )
        if connection.call(b"ZCARD", name.key) == 0:
            connection.pipeline([command(b"DEL", name.key), command(b"SREM", INDEX_REGISTRY, name.registered)])


def run(config: TierConfig, names: Sequence[str], node: str, within_s: float = WITHIN_S) -> dict[str, Any]:
    """Visit the stores of those names (host:port) side by side; return the object that is printed.

    Raises:
        ValueError: for a name that the configuration does not have.
    """
    known = {endpoint.name: endpoint for endpoint in config.endpoints}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"no such store in the configuration: {', '.join(unknown)}")
    namespace, data, started = namespace_of_node(node), os.urandom(CHUNK_BYTES), time.monotonic()
    visits: dict[str, Visit] = {}

    def one(name: str) -> None:
        visits[name] = visit(settings(config, known[name], namespace), data)

    threads = [threading.Thread(target=one, args=(name,), name=f"probe-{name}", daemon=True) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, started + within_s - time.monotonic()))
    done = dict(visits)
    late = Visit(why=f"not done within {within_s:g} s")
    return {
        "namespace": namespace,
        "bytes": CHUNK_BYTES,
        "seconds": round(time.monotonic() - started, 3),
        "stores": {name: asdict(done.get(name, late)) for name in names},
    }


def load_config(path: str, environ: Mapping[str, str]) -> tuple[TierConfig, str]:
    """Return the adapter's configuration with its passwords, and the name of this node.

    Raises:
        ValueError: when there is none, or it cannot be read; no password is in the message.
    """
    try:
        l2 = json.loads(Path(path).read_text())["l2"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} cannot be read: {type(error).__name__}") from None
    if not isinstance(l2, dict):
        raise ValueError(f"{path} has no stores")
    directory = environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        raise ValueError("CREDENTIALS_DIRECTORY is not set: the passwords of the stores are there")
    config = TierConfig.from_dict({**l2, "passwords_file": str(Path(directory, CREDENTIAL))})
    return config, config.local_node or os.uname().nodename


def main(args: Sequence[str]) -> int:
    """Print what the visits found; the exit status is in the module's docstring."""
    if len(args) < 2:
        sys.stderr.write("usage: python -m kvstrata.l2.probe CONFIG.json HOST:PORT ...\n")
        return 2
    try:
        config, node = load_config(args[0], os.environ)
        found = run(config, args[1:], node)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()
    return 0


def _await(begin: Callable[[Callable[[Any], None]], None], within_s: float) -> Any:
    """Return what the tier calls back with."""
    over, answers = threading.Event(), list[Any]()

    def done(answer: Any) -> None:
        answers.append(answer)
        over.set()

    begin(done)
    # The tier keeps its own deadlines; this one is for a fault of ours.
    if not over.wait(within_s + 2 * _STEP_S):
        raise _StopError("the adapter did not answer within its own deadline")
    return answers[0]


if __name__ == "__main__":
    status = main(sys.argv[1:])
    # Not awaited: a thread that hangs on a store that hangs.
    os._exit(status)
