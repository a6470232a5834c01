"""A connection to a store. Errors come as UnmetError, and never with the password in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from kvstrata.cluster import Store
from kvstrata.verify.check import UnmetError
from kvstrata.verify.shell import Shell
from kvstrata.verify.tunnelled import TunnelConnection

# Kvrocks' words for what Redis calls WRONGPASS; redis-py knows only the latter.
_REFUSED_BY_KVROCKS = "invalid password"


@contextmanager
def connection(shell: Shell, store: Store, password: str | None, timeout_s: float) -> Iterator[redis.Redis]:
    """A client of `store` through the node behind `shell`; its errors are raised as UnmetError.

    AuthenticationError passes unchanged: a check may be waiting for it.
    """
    tunnel = shell.tunnel(store.host, store.port)
    pool = redis.ConnectionPool(
        connection_class=TunnelConnection,
        tunnel=tunnel,
        password=password,
        # Kvrocks doesn't know the HELLO of protocol 3 that redis-py opens with.
        protocol=2,
        # Kvrocks doesn't know CLIENT SETINFO either.
        driver_info=None,
        socket_timeout=timeout_s,
        # One answer is what a check wants to see: no second try hides the first.
        retry=Retry(NoBackoff(), 0),
    )
    client: Any = redis.Redis(connection_pool=pool)
    try:
        yield client
    except redis.AuthenticationError:
        raise
    except (redis.RedisError, OSError) as error:
        if _REFUSED_BY_KVROCKS in str(error).lower():
            raise redis.AuthenticationError(str(error)) from error
        reason = tunnel.error or str(error) or type(error).__name__
        raise UnmetError(f"{store.address}: {reason}") from error
    finally:
        pool.disconnect()


@contextmanager
def authenticated(shell: Shell, store: Store, timeout_s: float) -> Iterator[redis.Redis]:
    """A client with the inventory's password; its being refused is raised as UnmetError too."""
    try:
        with connection(shell, store, store.password, timeout_s) as client:
            yield client
    except redis.AuthenticationError as error:
        raise UnmetError("the inventory's password was refused") from error
