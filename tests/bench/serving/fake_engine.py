"""A server on loopback that streams completions as vLLM does, with delays that are known."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Request:
    """What came, and when (time.perf_counter)."""

    body: dict[str, Any]
    headers: dict[str, str]
    at: float
    until: float = 0.0
    pieces: list[float] = field(default_factory=list)

    @property
    def ids(self) -> list[int]:
        prompt: list[int] = self.body["prompt"]
        return prompt


@dataclass
class Plan:
    """How one request is answered. fault: what goes wrong, once `fault_at` tokens were sent."""

    first_s: float = 0.0
    gap_s: float = 0.0
    piece_tokens: int = 1
    status: int = 200
    fault: str | None = None
    fault_at: int = 2
    tells_ids: bool = True
    counts: bool = True


@dataclass
class FakeEngine:
    """Answers by `plan(request)`; the n-th token of an answer has the id 500 + n."""

    plan: Callable[[Request], Plan] = field(default=lambda request: Plan())
    requests: list[Request] = field(default_factory=list)
    running: int = 0
    most: int = 0
    connections: int = 0
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = [line.partition(": ") for line in head.split("\r\n")[1:] if line]
        headers = {name.lower(): value for name, _, value in lines}
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        request = Request(body, headers, time.perf_counter())
        self.requests.append(request)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            return await self._answer(request, self.plan(request), writer)
        finally:
            self.running -= 1
            request.until = time.perf_counter()

    async def _answer(self, request: Request, plan: Plan, writer: asyncio.StreamWriter) -> bool:
        if plan.fault == "hang up":
            return False
        if plan.status != 200:
            said = b'{"error": {"message": "no room"}}'
            writer.write(f"HTTP/1.1 {plan.status} Busy\r\nContent-Length: {len(said)}\r\n\r\n".encode() + said)
            await writer.drain()
            return True
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        await asyncio.sleep(plan.first_s)
        total, sent = request.body["max_tokens"], 0
        while sent < total:
            if plan.fault and sent >= plan.fault_at:
                return await self._fail(plan, writer)
            ids = [500 + number for number in range(sent, min(total, sent + plan.piece_tokens))]
            sent += len(ids)
            request.pieces.append(time.perf_counter())
            await self._send(writer, self._event(request, plan, ids, sent, total))
            if sent < total:
                await asyncio.sleep(plan.gap_s)
        prompt = len(request.body["prompt"])
        usage = {"prompt_tokens": prompt, "completion_tokens": total, "prompt_tokens_details": {"cached_tokens": 16}}
        await self._send(writer, {"choices": [], "usage": usage})
        await self._send(writer, None)
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    def _event(self, request: Request, plan: Plan, ids: list[int], sent: int, total: int) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0, "text": "x" * len(ids)}
        if request.body.get("return_token_ids") and plan.tells_ids:
            choice["token_ids"] = ids
        if sent == total:
            choice["finish_reason"] = "length"
        event: dict[str, Any] = {"object": "text_completion", "choices": [choice]}
        if request.body["stream_options"].get("continuous_usage_stats") and plan.counts:
            event["usage"] = {"prompt_tokens": len(request.body["prompt"]), "completion_tokens": sent}
        return event

    async def _fail(self, plan: Plan, writer: asyncio.StreamWriter) -> bool:
        if plan.fault == "error":
            await self._send(writer, {"error": {"message": "the engine died"}})
            writer.write(b"0\r\n\r\n")
            await writer.drain()
            return True
        if plan.fault == "stop":
            await self._send(writer, None)
            writer.write(b"0\r\n\r\n")
            await writer.drain()
            return True
        if plan.fault == "nonsense":
            await self._send(writer, {"choices": [{"text": 5, "token_ids": 7}]})
        if plan.fault == "stall":
            await asyncio.sleep(60)
        return False

    async def _send(self, writer: asyncio.StreamWriter, event: dict[str, Any] | None) -> None:
        data = f"data: {'[DONE]' if event is None else json.dumps(event)}\n\n".encode()
        writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        await writer.drain()


@contextmanager
def fake_engine(plan: Callable[[Request], Plan] = lambda request: Plan()) -> Iterator[FakeEngine]:
    """Serve on loopback, in a thread of its own, until the end of the block."""
    engine = FakeEngine(plan)
    ready, loop = threading.Event(), asyncio.new_event_loop()

    async def main() -> None:
        server = await asyncio.start_server(engine.serve, "127.0.0.1", 0)
        engine.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()

    async def end() -> None:
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)
        loop.stop()

    def work() -> None:
        asyncio.set_event_loop(loop)
        loop.create_task(main())
        loop.run_forever()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield engine
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop)
        thread.join(10)
        loop.close()
