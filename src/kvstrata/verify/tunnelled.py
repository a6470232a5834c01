"""HTTP and RESP clients whose connections are channels of an SSH session: no local port, no thread in between."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any, cast

import httpcore
import httpx
from redis.connection import AbstractConnection

from kvstrata.verify.forward import Channel
from kvstrata.verify.shell import Tunnel


class TunnelTransport(httpx.BaseTransport):
    """Carries each request of an httpx client over a connection of its own through `tunnel`."""

    def __init__(self, tunnel: Tunnel) -> None:
        """Nothing is opened yet."""
        # A fresh connection each time: services are restarted between requests.
        # As many as are asked for at a time: a load must not wait here for the pool's usual ten.
        self._pool = httpcore.ConnectionPool(
            network_backend=_Backend(tunnel), max_connections=None, max_keepalive_connections=0
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx."""
        url = request.url
        core = httpcore.Request(
            method=request.method,
            url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=cast(Iterable[bytes], request.stream),
            extensions=request.extensions,
        )
        with _errors():
            answer = self._pool.handle_request(core)
        return httpx.Response(answer.status, headers=answer.headers, stream=_Body(answer), extensions=answer.extensions)

    def close(self) -> None:
        """See httpx."""
        self._pool.close()


class TunnelConnection(AbstractConnection):
    """A connection of redis-py through `tunnel`."""

    def __init__(self, tunnel: Tunnel, socket_timeout: float | None = None, **options: Any) -> None:
        """Nothing is opened yet."""
        super().__init__(**options)
        self._tunnel = tunnel
        self.socket_timeout = socket_timeout

    def repr_pieces(self) -> list[tuple[str, object]]:
        """See redis-py."""
        return [("db", self.db)]

    def _connect(self) -> Any:
        channel = self._tunnel.connect()
        channel.settimeout(self.socket_timeout)
        return channel

    def _host_error(self) -> str:
        return "the tunnel"


class _Backend(httpcore.NetworkBackend):
    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel

    def connect_tcp(self, *_address: Any, **_options: Any) -> httpcore.NetworkStream:
        try:
            return _Stream(self._tunnel.connect())
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error


class _Stream(httpcore.NetworkStream):
    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            self._channel.settimeout(timeout)
            return self._channel.recv(max_bytes)
        except TimeoutError as error:
            raise httpcore.ReadTimeout("no answer in time") from error
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            self._channel.settimeout(timeout)
            self._channel.sendall(buffer)
        except TimeoutError as error:
            raise httpcore.WriteTimeout("it takes nothing") from error
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    def close(self) -> None:
        self._channel.close()


class _Body(httpx.SyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        with _errors():
            yield from self._answer.iter_stream()

    def close(self) -> None:
        self._answer.close()


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """Raise what httpx's callers expect."""
    try:
        yield
    except httpcore.TimeoutException as error:
        raise httpx.TimeoutException(str(error)) from error
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        raise httpx.TransportError(str(error)) from error
