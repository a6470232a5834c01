"""Ways to an address as a node sees it, over channels that are pairs of sockets here."""

from __future__ import annotations

import os
import resource
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis

from kvstrata.verify.forward import LoopbackForward
from kvstrata.verify.tunnelled import TunnelConnection, TunnelTransport
from tests.verify.fakes.resp import RespServer
from tests.verify.fakes.shell import DirectChannel, DirectTunnel, closed_port
from tests.verify.fakes.web import WebServer


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as server:
        server.routes["/"] = lambda body: "hello"
        yield server


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def client(tunnel: LoopbackForward | DirectTunnel) -> httpx.Client:
    return httpx.Client(base_url="http://10.0.0.1:8000", transport=TunnelTransport(tunnel), trust_env=False, timeout=5)


def test_http_and_ports_lead_to_the_same_place(web: WebServer) -> None:
    forward = LoopbackForward(lambda: DirectChannel(web.port))
    assert client(forward).get("/").text == "hello"
    assert httpx.get(f"http://127.0.0.1:{forward.port}/", trust_env=False).text == "hello"
    forward.close()


def test_no_port_is_opened_that_nobody_asks_for(web: WebServer) -> None:
    before = open_files()
    forwards = [LoopbackForward(lambda: DirectChannel(web.port)) for _ in range(50)]
    assert all(client(forward).get("/").text == "hello" for forward in forwards)
    assert open_files() < before + 10


def test_many_ports_share_one_thread(web: WebServer) -> None:
    forwards = [LoopbackForward(lambda: DirectChannel(web.port)) for _ in range(50)]
    assert len({forward.port for forward in forwards}) == 50
    assert sum(thread.name == "accept" for thread in threading.enumerate()) == 1
    for forward in forwards:
        forward.close()


def test_descriptors_beyond_those_of_select_are_no_hindrance(web: WebServer) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1200:
        pytest.skip(f"not proven that a large site has enough descriptors: this system allows {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    taken = [os.dup(0) for _ in range(1050)]
    try:
        forward = LoopbackForward(lambda: DirectChannel(web.port))
        assert client(forward).get("/").text == "hello"
        assert httpx.get(f"http://127.0.0.1:{forward.port}/", trust_env=False).text == "hello"
        forward.close()
    finally:
        for descriptor in taken:
            os.close(descriptor)


def test_a_closed_forward_gives_no_port() -> None:
    forward = LoopbackForward(lambda: DirectChannel(closed_port()))
    port = forward.port
    forward.close()
    with pytest.raises(ConnectionError, match="closed"):
        _ = forward.port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 2)


def test_a_way_that_leads_nowhere_says_why() -> None:
    forward = LoopbackForward(lambda: DirectChannel(closed_port()))
    with pytest.raises(httpx.TransportError, match="Connection refused"):
        client(forward).get("/")
    assert forward.error is not None
    assert "Connection refused" in forward.error


def test_a_server_that_hangs_up_in_the_middle_is_an_error_of_httpx() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def half() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
                connection.close()

        threading.Thread(target=half, daemon=True).start()
        tunnel = DirectTunnel(listener.getsockname()[1])
        with pytest.raises(httpx.TransportError):
            client(tunnel).get("/")
        with client(tunnel).stream("GET", "/") as answer, pytest.raises(httpx.TransportError):
            answer.read()


def test_a_server_that_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        tunnel = DirectTunnel(listener.getsockname()[1])
        with pytest.raises(httpx.TimeoutException):
            client(tunnel).get("/", timeout=0.2)


def test_redis_goes_through_a_tunnel_and_is_given_up_there(resp_server: RespServer) -> None:
    def connected(port: int) -> redis.Redis:
        pool = redis.ConnectionPool(
            connection_class=TunnelConnection,
            tunnel=DirectTunnel(port),
            password="secret-pw",
            protocol=2,
            driver_info=None,
            socket_timeout=0.5,
        )
        return redis.Redis(connection_pool=pool)

    assert connected(resp_server.port).ping() is True
    with pytest.raises(redis.ConnectionError, match="refused"):
        connected(closed_port()).ping()
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(redis.TimeoutError):
        connected(silent.getsockname()[1]).ping()
