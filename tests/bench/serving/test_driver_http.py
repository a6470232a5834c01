"""The HTTP that the load generator speaks."""

from __future__ import annotations

import asyncio

import pytest

from kvstrata.bench.serving.drivers.completion import Completion
from kvstrata.bench.serving.drivers.http import Chunks, HttpError, Pool, Target

CHUNKED = b"3\r\nabc\r\n5;note=1\r\nde\r\nf\r\n0\r\nTrailer: x\r\n\r\n"


@pytest.mark.parametrize("step", [1, 2, 3, 7, 100])
def test_a_chunked_body_is_the_same_however_it_is_cut_on_its_way(step: int) -> None:
    chunks = Chunks()
    found = b"".join(chunks.feed(CHUNKED[at : at + step]) for at in range(0, len(CHUNKED), step))
    assert found == b"abcde\r\nf"
    assert chunks.ended


def test_a_body_that_is_not_chunked_is_refused() -> None:
    with pytest.raises(HttpError, match="no chunk size"):
        Chunks().feed(b"data: {}\r\n")


@pytest.mark.parametrize("step", [1, 5, 1000])
def test_events_are_the_same_however_they_are_cut_on_their_way(step: int) -> None:
    stream = (
        b'data: {"choices":[{"text":"a","token_ids":[7]}]}\r\n\r\n: a comment\n\n'
        b'data: {"choices":[{"text":"bc","token_ids":[8,9],"finish_reason":"length"}]}\n\n'
        b'data: {"choices":[],"usage":{"prompt_tokens":4,"completion_tokens":3}}\n\ndata: [DONE]\n\n'
    )
    answer = Completion()
    for at in range(0, len(stream), step):
        answer.feed(stream[at : at + step], float(at))
    assert (answer.ids, answer.finish, answer.prompt_tokens, answer.output_tokens) == ([7, 8, 9], "length", 4, 3)
    assert answer.done
    assert answer.counted


@pytest.mark.parametrize(
    ("data", "said"), [(b"{oops", "an event that is no JSON"), (b"[1]", "an event that is no obj")]
)
def test_an_event_of_another_form_is_an_error(data: bytes, said: str) -> None:
    answer = Completion()
    answer.feed(b"data: " + data + b"\n\n", 0.0)
    assert answer.error is not None
    assert answer.error.startswith(said)


@pytest.mark.parametrize(
    ("raw", "again"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n", True),
    ],
)
def test_a_connection_is_used_again_unless_the_server_says_otherwise(raw: bytes, again: bool) -> None:
    body, connections = asyncio.run(_twice(raw))
    assert body == b"body"
    assert connections == (1 if again else 2)


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    body, connections = asyncio.run(_twice(b"HTTP/1.0 200 OK\r\n\r\nbody", close=True))
    assert (body, connections) == (b"body", 2)


def test_what_is_no_http_is_an_error() -> None:
    with pytest.raises(HttpError, match="no HTTP answer"):
        asyncio.run(_twice(b"SSH-2.0-x\r\n\r\n"))


@pytest.mark.parametrize("url", ["host:80", "ftp://host", "http://", ""])
def test_a_url_must_be_http(url: str) -> None:
    with pytest.raises(ValueError, match="allowed: http"):
        Target.of(url)


def test_a_url_may_have_a_path_in_front_of_the_apis() -> None:
    assert Target.of("http://h:1/a/").prefix == "/a"


async def _twice(raw: bytes, *, close: bool = False) -> tuple[bytes, int]:
    """Send two requests and return the second's body, and how many connections that took."""
    opened = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(raw)
                await writer.drain()
                if close:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        pool = Pool(Target.of(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
        body = b""
        for _ in range(2):
            connection = await pool.take()
            try:
                pieces: list[bytes] = []
                await connection.post("/", {}, b"", pieces.append)
                body = b"".join(pieces)
            finally:
                pool.give(connection)
        pool.close()
    return body, opened
