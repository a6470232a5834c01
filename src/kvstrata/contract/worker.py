"""Mocked engines for the contract test: `python -m kvstrata.contract.worker CONFIG.json`.

Runs in the nodes' environment, which has ai-dynamo. Each engine is one of dynamo.mocker's: it schedules, batches, keeps
and evicts KV blocks and takes its time as vLLM would, and computes nothing. It is reached in two ways at once, so that
both profiles are judged with the same engines: as a Dynamo worker, found by discovery, and over vLLM's own HTTP API
with vLLM's own KV events, for vllm-router.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import zmq
import zmq.asyncio
from aiohttp import web
from dynamo.llm import EngineType, EntrypointArgs, make_engine, run_input
from dynamo.mocker.config import build_runtime_config, normalize_mocker_config
from dynamo.runtime import DistributedRuntime
from tokenizers import Tokenizer

ENDPOINT = "dynamo.backend.generate"
_HOST = "127.0.0.1"
_POLL_S = 0.05
_START_S = 60.0
_RENDERED = 4096


@dataclass(frozen=True)
class Config:
    """What CONFIG.json says. Sizes in tokens but for `blocks`; kvstrata.contract.local writes it."""

    model_path: str
    model_name: str
    block_size: int
    blocks: int
    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    speedup: float
    """How many times faster than the mocker's model of an engine; 0: without taking time."""
    workers: list[dict[str, Any]]
    """Each with `name`, `port` (HTTP), `events_port` (vLLM's KV events) and `engine_events_port` (the mocker's)."""
    alive: list[str] = field(default_factory=list)
    """Instances of other processes, which discovery must show before any of ours is started."""
    known: list[str] = field(default_factory=list)
    """All instances that ever were: none of them is one of ours, however late discovery shows or forgets it."""


class Engine:
    """One mocked engine, and how to ask it."""

    def __init__(self, name: str, client: Any, instance: int, config: Config) -> None:
        """`client` is of the endpoint that it is an instance of."""
        self.name = name
        self.instance = instance
        self._client = client
        self._config = config

    async def generate(self, ids: list[int], tokens: int) -> AsyncIterator[dict[str, Any]]:
        """Yield what comes, with `token_ids` and at the end `completion_usage`."""
        request = {
            "token_ids": ids,
            "model": self._config.model_name,
            "stop_conditions": {"max_tokens": tokens, "ignore_eos": True},
            "sampling_options": {},
            "output_options": {},
            "eos_token_ids": [],
            "annotations": [],
        }
        async for piece in await self._client.direct(request, self.instance):
            yield piece.data() if hasattr(piece, "data") else piece


class Front:
    """vLLM's HTTP API in front of one engine: what vllm-router asks, and the completions."""

    def __init__(self, engine: Engine, config: Config, tokens_of: Callable[[str], tuple[int, ...]]) -> None:
        """Begin to count."""
        self._engine, self._config, self._tokens_of = engine, config, tokens_of
        self._rendered = functools.partial(_rendered, tokens_of, config.model_name)

    def app(self) -> web.Application:
        """Return the application; what it does not know is 404, as in vLLM."""
        app = web.Application(client_max_size=1 << 26)
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/kvstrata/worker", self._worker)
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_post("/v1/completions/render", self._render)
        return app

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _models(self, _: web.Request) -> web.Response:
        card = {"id": self._config.model_name, "object": "model", "max_model_len": self._config.max_model_len}
        return web.json_response({"object": "list", "data": [card]})

    async def _worker(self, _: web.Request) -> web.Response:
        # A text: a number of 64 bits is not the same in every reader of JSON.
        return web.json_response({"name": self._engine.name, "instance": str(self._engine.instance)})

    async def _render(self, request: web.Request) -> web.Response:
        # A router asks every engine for the tokens of every prompt, so the engines of this program answer it together.
        return web.Response(body=self._rendered(await request.read()), content_type="application/json")

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        ids, tokens = self._ids(body["prompt"]), int(body.get("max_tokens", 16))
        if body.get("stream"):
            return await self._stream(request, ids, tokens)
        count, last = 0, dict[str, Any]()
        async for last in self._engine.generate(ids, tokens):
            count += len(last.get("token_ids", ()))
        return web.json_response(self._answer("a" * count, "length", last.get("completion_usage")))

    async def _stream(self, request: web.Request, ids: list[int], tokens: int) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        last = dict[str, Any]()
        async for last in self._engine.generate(ids, tokens):
            if new := len(last.get("token_ids", ())):
                await response.write(_event(self._answer("a" * new, last.get("finish_reason"), None)))
        usage = {**self._answer("", None, last.get("completion_usage")), "choices": []}
        await response.write(_event(usage) + b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    def _answer(self, text: str, finish: Any, usage: Any) -> dict[str, Any]:
        choice = {"index": 0, "text": text, "finish_reason": finish}
        return {
            "id": "cmpl-contract",
            "object": "text_completion",
            "model": self._config.model_name,
            "choices": [choice],
            "usage": usage,
            # Not of the API: who answered, which vllm-router does not tell.
            "worker": self._engine.name,
        }

    def _ids(self, prompt: str | list[int]) -> list[int]:
        return list(self._tokens_of(prompt)) if isinstance(prompt, str) else prompt


@functools.lru_cache(_RENDERED)
def _rendered(tokens_of: Callable[[str], tuple[int, ...]], model: str, body: bytes) -> bytes:
    """Return the answer to a request for a prompt's tokens."""
    prompt = json.loads(body)["prompt"]
    ids = list(tokens_of(prompt)) if isinstance(prompt, str) else prompt
    return json.dumps([{"request_id": "render", "token_ids": ids, "sampling_params": {}, "model": model}]).encode()


def _event(content: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(content, separators=(",", ":")).encode() + b"\n\n"


async def relay_events(source: int, target: int) -> None:
    """Hand the mocker's KV events on in vLLM's form: vllm-router drops events without the fields that vLLM has."""
    context = zmq.asyncio.Context.instance()
    events, relayed = context.socket(zmq.SUB), context.socket(zmq.PUB)
    # A burst must not be dropped: a router that misses a removal believes in blocks that are gone.
    events.set_hwm(0)
    relayed.set_hwm(0)
    events.connect(f"tcp://{_HOST}:{source}")
    events.setsockopt(zmq.SUBSCRIBE, b"")
    relayed.bind(f"tcp://{_HOST}:{target}")
    while True:
        *head, payload = await events.recv_multipart()
        batch = msgspec.msgpack.decode(payload)
        for event in batch[1]:
            if event["type"] in ("BlockStored", "BlockRemoved"):
                event.setdefault("medium", "GPU")
            if event["type"] == "BlockStored":
                event.setdefault("lora_id", None)
                event.setdefault("lora_name", None)
        await relayed.send_multipart([*head, msgspec.msgpack.encode(batch)])


async def start_engine(config: Config, events_port: int) -> Awaitable[None]:
    """Start one mocker with a runtime of its own, so that it is an instance of its own; return what runs it."""
    engine = {
        "backend": "vllm",
        "worker_type": "aggregated",
        "num_gpu_blocks": config.blocks,
        "block_size": config.block_size,
        "max_model_len": config.max_model_len,
        "max_num_seqs": config.max_num_seqs,
        "max_num_batched_tokens": config.max_num_batched_tokens,
        "enable_prefix_caching": True,
        "enable_chunked_prefill": True,
        "speedup_ratio": config.speedup,
    }
    given = {"engine": engine, "dynamo": {"enable_local_indexer": True, "zmq_kv_events_port": events_port}}
    arguments = normalize_mocker_config(given)
    block_size, runtime_config = build_runtime_config(arguments)
    runtime = _runtime()
    entry = EntrypointArgs(
        engine_type=EngineType.Mocker,
        model_path=config.model_path,
        model_name=config.model_name,
        endpoint_id=f"dyn://{ENDPOINT}",
        extra_engine_args=None,
        mocker_engine_args=arguments,
        runtime_config=runtime_config,
        kv_cache_block_size=block_size,
        is_prefill=False,
        is_decode=False,
    )
    running: Awaitable[None] = run_input(runtime, f"dyn://{ENDPOINT}", await make_engine(runtime, entry))
    return running


def _runtime() -> Any:
    return DistributedRuntime(asyncio.get_running_loop(), "file", "tcp", event_plane="zmq")


async def new_instance(client: Any, known: set[int]) -> int:
    """Return the instance that is not among those known; no other process may start one meanwhile."""
    await until(lambda: bool(set(client.instance_ids()) - known), "no new engine")
    return int((set(client.instance_ids()) - known).pop())


async def until(met: Callable[[], bool], otherwise: str) -> None:
    """Wait until a condition is met; end this program with the reason if it is not in time."""
    over = time.monotonic() + _START_S
    while not met():
        if time.monotonic() > over:
            raise SystemExit(f"{otherwise} in DYN_FILE_KV {os.environ.get('DYN_FILE_KV')} after {_START_S:g} s")
        await asyncio.sleep(_POLL_S)


async def main(config: Config, front: type[Front] = Front) -> None:
    """Start every engine with its `front`; run until one of them ends."""
    tokenizer = Tokenizer.from_file(str(Path(config.model_path) / "tokenizer.json"))

    @functools.lru_cache(_RENDERED)
    def tokens_of(text: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(text).ids)

    client = await _runtime().endpoint(ENDPOINT).client()
    # What others started would be taken for the first of ours.
    others, known = set(map(int, config.alive)), set(map(int, config.known))
    await until(lambda: others <= set(client.instance_ids()), "the other engines are not")
    running: list[asyncio.Future[Any]] = []
    for worker in config.workers:
        running.append(asyncio.ensure_future(await start_engine(config, worker["engine_events_port"])))
        engine = Engine(worker["name"], client, await new_instance(client, known), config)
        known.add(engine.instance)
        running.append(asyncio.ensure_future(relay_events(worker["engine_events_port"], worker["events_port"])))
        runner = web.AppRunner(front(engine, config, tokens_of).app())
        await runner.setup()
        await web.TCPSite(runner, _HOST, worker["port"]).start()
    ended, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    raise SystemExit(f"an engine ended: {[task.exception() for task in ended]}")


if __name__ == "__main__":
    os.environ.setdefault("DYN_COMPUTE_THREADS", "0")
    asyncio.run(main(Config(**json.loads(Path(sys.argv[1]).read_text()))))
