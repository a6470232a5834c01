"""A site of two engines with small KV caches and a router, all of them fakes on loopback behind shells that are fakes.

An engine keeps whole blocks of its prompts, drops the oldest, counts as vLLM does and tells events as vLLM does: what
its KV events and counters say is what it did.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers

from kvstrata.cluster import Cluster, parse
from kvstrata.drain.site import Site
from tests.verify.fakes import documents
from tests.verify.fakes.shell import FakeShell

BLOCK = 16


def tokenizer() -> Tokenizer:
    """Each byte a token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return made


class Http:
    """Answers with the JSON or text that `answer` returns, for as long as the block lasts."""

    def __init__(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._reply({})

            def do_POST(self) -> None:
                self._reply(json.loads(self.rfile.read(int(self.headers["content-length"] or 0)) or b"{}"))

            def _reply(self, body: dict[str, Any]) -> None:
                outer.headers.append(dict(self.headers))
                said = outer.answer(self.path, body)
                content = (said if isinstance(said, str) else json.dumps(said)).encode()
                if body.get("stream"):
                    content = b"data: " + content + b"\n\ndata: " + content + b"\n\ndata: [DONE]\n\n"
                self.send_response(200 if said else 404)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                """Keep the tests' output clean."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

        self.headers: list[dict[str, str]] = []
        self._server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]

    def answer(self, path: str, body: dict[str, Any]) -> Any:
        raise NotImplementedError

    def __enter__(self) -> None:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class Engine(Http):
    """`log` is what a recorder on its node would have written."""

    def __init__(self, name: str, blocks: int) -> None:
        super().__init__()
        self.name, self.room, self.tells = name, blocks, True
        self.log = '{"ready": true}\n'
        self.blocks: OrderedDict[tuple[int, ...], str] = OrderedDict()
        self.requests = self.hits = self.computed = 0
        self._numbers, self._sequence = itertools.count(), itertools.count()
        self._lock, self._tokenizer = threading.Lock(), tokenizer()

    def answer(self, path: str, body: dict[str, Any]) -> Any:
        if path == "/metrics":
            return (
                f'vllm:cache_config_info{{block_size="{BLOCK}",num_gpu_blocks="{self.room}"}} 1.0\n'
                "vllm:num_requests_running 0\nvllm:num_requests_waiting 0\n"
                f'vllm:request_success_total{{finished_reason="length"}} {self.requests}\n'
                f'vllm:prompt_tokens_by_source_total{{source="local_cache_hit"}} {self.hits}\n'
                f'vllm:prompt_tokens_by_source_total{{source="local_compute"}} {self.computed}\n'
            )
        return self.complete(body) if path == "/v1/completions" else "ok"

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        ids = self._tokenizer.encode(body["prompt"]).ids
        with self._lock:
            self._keep(ids)
        usage = {"prompt_tokens": len(ids), "completion_tokens": body["max_tokens"]}
        return {"choices": [{"text": "a"}], "usage": usage}

    def _keep(self, ids: Sequence[int]) -> None:
        keys = [tuple(ids[:end]) for end in range(BLOCK, len(ids) + 1, BLOCK)]
        known = next((number for number, key in enumerate(keys) if key not in self.blocks), len(keys))
        self.requests += 1
        self.hits += known * BLOCK
        self.computed += len(ids) - known * BLOCK
        for key in reversed(keys[:known]):
            self.blocks.move_to_end(key)
        events: list[dict[str, Any]] = []
        gone = []
        while self.blocks and len(self.blocks) + len(keys) - known > self.room:
            gone.append(self.blocks.popitem(last=False)[1])
        if gone:
            events.append({"type": "BlockRemoved", "block_hashes": gone, "medium": "GPU"})
        parent = self.blocks.get(keys[known - 1]) if known else None
        for key in keys[known:]:
            self.blocks[key] = f"{self.name}-{next(self._numbers)}"
        if fresh := keys[known:]:
            events.append(
                {
                    "type": "BlockStored",
                    "block_hashes": [self.blocks[key] for key in fresh],
                    "parent_block_hash": parent,
                    "token_ids": list(ids[known * BLOCK : len(keys) * BLOCK]),
                    "block_size": BLOCK,
                    "medium": "GPU",
                }
            )
        line = {"at": time.monotonic(), "worker": self.name, "seq": next(self._sequence), "events": events}
        self.log += json.dumps(line) + "\n"


class Router(Http):
    """Sends a conversation where its beginning was sent before, or each request to the next engine."""

    def __init__(self, engines: Sequence[Engine], *, sticky: bool) -> None:
        super().__init__()
        self._engines, self._sticky = engines, sticky
        self._homes: dict[str, Engine] = {}
        self._turn = itertools.count()
        self.urls: list[str] = []

    def answer(self, path: str, body: dict[str, Any]) -> Any:
        if path == "/workers":
            return {"workers": [{"url": url, "is_healthy": True} for url in self.urls]}
        if path != "/v1/completions":
            return ""
        following = self._engines[next(self._turn) % len(self._engines)]
        if not self._sticky:
            return following.complete(body)
        conversation = body["prompt"][:17] + re.findall(r" c\d+ 0 ", body["prompt"])[0]
        return self._homes.setdefault(conversation, following).complete(body)


class DeployedSite:
    """Two nodes with an engine each; the first has the router, and other routers for as long as a unit runs."""

    def __init__(self, state_dir: Path, blocks: int = 400, *, events: bool = True) -> None:
        self.document = documents.cluster(state_dir)
        self.engines = {node["name"]: Engine(f"{node['name']}/0", blocks) for node in self.document["nodes"]}
        self.shells = {name: FakeShell() for name in self.engines}
        self.router = Router(list(self.engines.values()), sticky=True)
        self.other = Router(list(self.engines.values()), sticky=False)
        self.units: dict[str, set[str]] = {name: set() for name in self.engines}
        self.said: list[str] = []
        self._stack = ExitStack()
        for node in self.document["nodes"]:
            node["engines"][0]["event_port"] = 20080 if events else None

    @property
    def cluster(self) -> Cluster:
        return parse(self.document)

    @property
    def site(self) -> Site:
        return Site(self.cluster, self.shells, self.said.append)

    def __enter__(self) -> DeployedSite:
        for served in (self.router, self.other, *self.engines.values()):
            self._stack.enter_context(served)
        self.router.urls = self.other.urls = [f"http://{node['ssh']['host']}:8000" for node in self.document["nodes"]]
        for node in self.document["nodes"]:
            name, host = node["name"], node["ssh"]["host"]
            shell = self.shells[name]
            shell.ports |= {(host, 8000): self.engines[name].port, (host, 9000): self.router.port}
            shell.ports["127.0.0.1", 7001] = self.other.port
            shell.answers = {
                "cat /proc/sys/kernel/random/boot_id": Path("/proc/sys/kernel/random/boot_id").read_text(),
                "cat /srv/models/m/tokenizer.json": tokenizer().to_str(),
                "systemctl show --property=ExecStart": (
                    "{ path=/x/bin/vllm-router ; argv[]=/x/bin/vllm-router --host 10.9.0.11 --port 9000 --policy "
                    "cache_aware --prometheus-port 9100 --balance-abs-threshold 16 --worker-urls u1 u2 ; "
                    "ignore_errors=no ; start_time=[n/a] }"
                ),
                "systemctl show --property=MainPID": "4711",
                "systemctl is-active": "",
                "systemctl stop": partial(self._stop, name),
                "systemd-run": partial(self._start, name),
                "test -s": "",
                "tail -c": partial(self._tail, name),
                "/opt/kvstrata/current/bin/python -c": self._python,
            }
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self, name: str, argv: Sequence[str]) -> str:
        self.units[name].add(next(word for word in argv if word.startswith("--unit=")).removeprefix("--unit="))
        return ""

    def _stop(self, name: str, argv: Sequence[str]) -> str:
        self.units[name].discard(argv[-1])
        return ""

    def _tail(self, name: str, argv: Sequence[str]) -> str:
        return self.engines[name].log[int(argv[2]) - 1 :]

    def _python(self, argv: Sequence[str]) -> str:
        return "vllm-router=0.1.17\nvllm-cpu=0.31.0" if "importlib" in argv[2] else "7001 7002"
