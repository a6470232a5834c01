"""The client fails, and tries again, as OpenAI's SDK does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator

import pytest
import yaml

from kvstrata.contract import client
from kvstrata.contract.client import Answer, Client, Front, Request, retried, wait_s
from kvstrata.paths import PROJECT

USAGE: dict[str, object] = {"prompt_tokens": 10, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 8}}
WHOLE: dict[str, object] = {"worker": "w1", "usage": USAGE, "choices": [{"text": "aa"}]}


def response(status: int, content: object) -> bytes:
    body = json.dumps(content).encode()
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body


def stream(*events: object, end: bool = True) -> bytes:
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    return b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body + (b"data: [DONE]\n\n" if end else b"")


def ask(answers: list[bytes], *, streamed: bool = False, refused_first: bool = False) -> tuple[Answer, list[bytes]]:
    """Ask a server that gives these answers in turns and hangs up after each; return what it was asked too."""
    asked: list[bytes] = []

    async def run() -> Answer:
        waiting = iter(answers)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            asked.append(head + await reader.readexactly(length))
            writer.write(next(waiting))
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        closed = await asyncio.start_server(serve, "127.0.0.1", 0)
        nobody = f"http://127.0.0.1:{closed.sockets[0].getsockname()[1]}"
        closed.close()
        front = Front(url, "model", lambda said: said.get("worker"))
        if refused_first:
            front = Front(nobody, "model", lambda said: said.get("worker"), backup=url)
        sender = Client(front, 5.0)
        try:
            return await sender.send(Request("c", 0, "hello", 2, stream=streamed))
        finally:
            sender.close()
            server.close()

    return asyncio.run(run()), asked


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_FIRST_WAIT_S", 0.01)


def test_a_whole_answer_tells_worker_and_cached_tokens() -> None:
    answer, asked = ask([response(200, WHOLE)])
    assert answer.ok
    assert (answer.worker, answer.prompt_tokens, answer.cached_tokens, answer.attempts) == ("w1", 10, 8, 1)
    assert b"X-Session-ID" not in asked[0]


def test_a_stream_is_read_to_its_end() -> None:
    answer, _ = ask([stream({"worker": "w1", "choices": [{"text": "a"}]}, {"usage": USAGE})], streamed=True)
    assert answer.ok
    assert (answer.worker, answer.cached_tokens) == ("w1", 8)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_what_the_sdk_tries_again_is_tried_again_and_counted(status: int) -> None:
    answer, asked = ask([response(status, {}), response(status, {}), response(200, WHOLE)])
    assert answer.ok
    assert answer.attempts == len(asked) == 3
    assert all(why.startswith(f"HTTP {status}") for why in answer.why)


def test_three_failures_are_a_failed_request() -> None:
    answer, asked = ask([response(503, {})] * 4)
    assert not answer.ok
    assert len(asked) == 3


@pytest.mark.parametrize("status", [400, 404])
def test_other_statuses_fail_at_once(status: int) -> None:
    answer, asked = ask([response(status, {}), response(200, WHOLE)])
    assert answer.error is not None
    assert answer.error.startswith(f"HTTP {status}")
    assert len(asked) == 1


def test_a_connection_that_ends_before_an_answer_is_tried_again() -> None:
    answer, _ = ask([b"", response(200, WHOLE)])
    assert answer.ok
    assert answer.attempts == 2


def test_a_stream_that_is_cut_is_not_sent_again() -> None:
    answer, asked = ask([stream({"worker": "w1", "choices": [{"text": "a"}]}, end=False)] * 2, streamed=True)
    assert answer.error is not None
    assert answer.error.startswith("cut:")
    assert len(asked) == 1


def test_an_answer_that_is_too_short_fails() -> None:
    answer, _ = ask([response(200, {**WHOLE, "usage": {**USAGE, "completion_tokens": 1}})])
    assert answer.error == "short: 1 of 2 tokens"


def test_where_the_first_router_cannot_be_reached_the_other_is_asked_at_once() -> None:
    answer, _ = ask([response(200, WHOLE)], refused_first=True)
    assert answer.ok
    assert answer.attempts == 1


def ask_two(first: list[bytes] | None, second: list[bytes] | None, *, dynamo: bool = True) -> tuple[Answer, list[int]]:
    """Ask two routers that give these answers in turns, None: it is not there; return how often each was asked too."""
    asked = [0, 0]

    async def run() -> Answer:
        servers, urls = [], []
        for number, answers in enumerate((first, second)):
            waiting = iter(answers or ())

            async def serve(
                reader: asyncio.StreamReader,
                writer: asyncio.StreamWriter,
                number: int = number,
                waiting: Iterator[bytes] = waiting,
            ) -> None:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]))
                asked[number] += 1
                writer.write(next(waiting))
                await writer.drain()
                writer.close()

            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            urls.append(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            servers.append(server)
            if answers is None:
                server.close()
        front = Front(urls[0], "model", lambda said: said.get("worker"), backup=urls[1], unready_404=dynamo)
        sender = Client(front, 5.0)
        try:
            return await sender.send(Request("c", 0, "hello", 2, stream=False))
        finally:
            sender.close()
            for server in servers:
                server.close()

    return asyncio.run(run()), asked


EMPTY_404 = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


def test_a_frontend_that_knows_no_model_yet_has_the_other_one_asked() -> None:
    answer, asked = ask_two([EMPTY_404], [response(200, WHOLE)])
    assert answer.ok
    assert (answer.attempts, asked) == (1, [1, 1])


def test_a_router_that_hangs_up_before_its_answer_has_the_other_one_asked() -> None:
    answer, asked = ask_two([b""], [response(200, WHOLE)])
    assert answer.ok
    assert (answer.attempts, asked) == (1, [1, 1])


@pytest.mark.parametrize("second", [[EMPTY_404], None])
def test_where_no_router_knows_the_model_the_client_is_told_to_try_again(
    second: list[bytes] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "EDGE_RETRY_AFTER_S", 0.01)
    answer, asked = ask_two([EMPTY_404, response(200, WHOLE)], second)
    assert answer.ok
    assert answer.attempts == 2
    assert answer.why[0].startswith("HTTP 503")
    assert asked[0] == 2


def test_a_404_with_a_body_and_one_of_vllm_router_are_passed_on() -> None:
    told = response(404, {"error": "no such model"})
    assert str(ask_two([told], [told])[0].error).startswith("HTTP 404")
    answer, asked = ask_two([EMPTY_404], [response(200, WHOLE)], dynamo=False)
    assert str(answer.error).startswith("HTTP 404")
    assert asked == [1, 0]


def test_the_server_says_when_to_try_again() -> None:
    busy = b"HTTP/1.1 503 X\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
    answer, _ = ask([busy, response(200, WHOLE)])
    assert answer.ok
    assert answer.last_sent - answer.sent >= 1.0
    assert wait_s(0, 0.0, 61.0) == wait_s(0, 0.0)


def test_the_edge_says_when_as_the_role_has_it() -> None:
    defaults = yaml.safe_load((PROJECT / "roles" / "edge" / "defaults" / "main.yml").read_text())
    assert defaults["edge_retry_after_s"] == client.EDGE_RETRY_AFTER_S


def test_waits_are_the_sdks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    waits: Callable[[int], float] = lambda retry: wait_s(retry, 0.0)  # noqa: E731
    assert [waits(retry) for retry in range(6)] == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]
    assert wait_s(0, 1.0) == pytest.approx(0.375)
    assert not retried(404)
