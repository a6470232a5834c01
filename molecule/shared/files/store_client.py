#!/usr/bin/env python3
"""store_client.py HOST PORT COMMAND: speak to a store as a stranger on the network would; prints one JSON object.

Commands: `look` tells the engine, its clients, and what it answers without and with a wrong password; `write`
puts 1 MiB of random bytes into a hash and reads it back; `read` prints the digest of what is there. The password
comes in the environment, as STORE_PASSWORD.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from typing import Any

import redis

VALUE_BYTES = 1 << 20
KEY, FIELD = "molecule", "value"


def client(password: str | None) -> Any:
    """Return a client that speaks the protocol Kvrocks knows."""
    return redis.Redis(
        host=sys.argv[1], port=int(sys.argv[2]), password=password, protocol=2, driver_info=None, socket_timeout=10
    )


def refusal(password: str | None) -> str:
    """Return the error that a client with this password gets, or nothing when it gets none."""
    try:
        client(password).ping()
    except redis.RedisError as error:
        return str(error) or type(error).__name__
    return ""


def digest(store: Any) -> str:
    """Return the sha256 of the stored value, or nothing when there is none."""
    value = store.hget(KEY, FIELD)
    return "" if value is None else hashlib.sha256(value).hexdigest()


def main() -> None:
    """Run the command."""
    store = client(os.environ["STORE_PASSWORD"])
    answer: dict[str, Any] = {}
    if sys.argv[3] == "look":
        info = store.info()
        answer["engine"] = "kvrocks" if "kvrocks_version" in info else "redis"
        answer["clients"] = info["connected_clients"]
        answer["without_password"] = refusal(None)
        answer["with_wrong_password"] = refusal("wrong")
    elif sys.argv[3] == "write":
        value = os.urandom(VALUE_BYTES)
        store.hset(KEY, FIELD, value)
        answer["written"] = hashlib.sha256(value).hexdigest()
    answer["stored"] = digest(store)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
