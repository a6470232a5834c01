"""A router with vllm-router's admin endpoints and engines that tell their requests."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kvstrata.cluster import Cluster, parse
from kvstrata.drain.site import Site
from tests.verify.fakes import documents
from tests.verify.fakes.shell import FakeShell


class Served:
    """Answers what `answer` returns: a code and a text, or one and server-sent events."""

    def __init__(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._reply("GET")

            def do_POST(self) -> None:
                self._reply("POST")

            def _reply(self, verb: str) -> None:
                parts = urlsplit(self.path)
                url = parse_qs(parts.query).get("url", [""])[0]
                body = json.loads(self.rfile.read(int(self.headers["content-length"] or 0)) or b"{}")
                code, text = outer.answer(verb, parts.path, url, body)
                self.send_response(code)
                if not isinstance(text, str):
                    self.end_headers()
                    # A client may leave before the end.
                    with suppress(BrokenPipeError, ConnectionResetError), closing(text):
                        for event in text:
                            self.wfile.write(f"data: {event}\n\n".encode())
                    return
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, format: str, *args: object) -> None:
                """Keep the tests' output clean."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]

    def answer(self, verb: str, path: str, url: str, body: dict[str, Any]) -> tuple[int, str | Generator[str]]:
        raise NotImplementedError

    def __enter__(self) -> None:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()


class FakeRouter(Served):
    """Its workers, and the orders it got."""

    def __init__(self, urls: Sequence[str]) -> None:
        super().__init__()
        self.workers = dict.fromkeys(urls, True)
        self.orders: list[str] = []
        self.obeys = True

    def answer(self, verb: str, path: str, url: str, body: dict[str, Any]) -> tuple[int, str | Generator[str]]:
        if (verb, path) == ("GET", "/workers"):
            rows = [{"url": worker, "is_healthy": well} for worker, well in self.workers.items()]
            return 200, json.dumps({"workers": rows})
        if verb == "POST" and path in ("/remove_worker", "/add_worker"):
            self.orders.append(f"{path} {url}")
            return self._remove(url) if path == "/remove_worker" else self._add(url)
        return 404, ""

    def _remove(self, url: str) -> tuple[int, str]:
        if self.obeys:
            self.workers.pop(url, None)
        return 200, f"Successfully removed worker: {url}"

    def _add(self, url: str) -> tuple[int, str]:
        if url in self.workers:
            return 400, f"Worker {url} already exists"
        if not self.obeys:
            return 503, "no"
        self.workers[url] = True
        return 200, f"Successfully added worker: {url}"


class FakeEngine(Served):
    """`loads` are its next counts of running requests; the last one stays."""

    def __init__(self) -> None:
        super().__init__()
        self.loads = [0]
        self.health = 200
        self.mute = False
        self.asked = 0

    def answer(self, verb: str, path: str, url: str, body: dict[str, Any]) -> tuple[int, str | Generator[str]]:
        if path == "/health":
            return self.health, ""
        if path == "/metrics" and not self.mute:
            self.asked += 1
            running = self.loads.pop(0) if len(self.loads) > 1 else self.loads[0]
            return 200, f'vllm:num_requests_running{{engine="0"}} {running}.0\nvllm:num_requests_waiting 0.0\n'
        return 503, ""


class FakeSite:
    """Two nodes, the first with the router. `state` is what systemd says of the engines' units."""

    def __init__(self, state_dir: Path, profile: str = "router") -> None:
        self.document = documents.cluster(state_dir)
        self.document["profile"] = profile
        self.said: list[str] = []
        self.shells = {node["name"]: FakeShell() for node in self.document["nodes"]}
        self.state = {name: ["active", "success"] for name in self.shells}
        self.router = FakeRouter([self.url(name) for name in self.shells])
        self.engines = {name: FakeEngine() for name in self.shells}
        self._stack = ExitStack()

    def url(self, name: str) -> str:
        host = next(node["ssh"]["host"] for node in self.document["nodes"] if node["name"] == name)
        return f"http://{host}:8000"

    @property
    def cluster(self) -> Cluster:
        return parse(self.document)

    @property
    def site(self) -> Site:
        return Site(self.cluster, self.shells, self.said.append)

    def ran(self, name: str) -> list[str]:
        """What was started and stopped on a node."""
        return [line for line in self.shells[name].ran if not line.startswith("systemctl show")]

    def __enter__(self) -> FakeSite:
        for served in (self.router, *self.engines.values()):
            self._stack.enter_context(served)
        for node in self.document["nodes"]:
            name, host = node["name"], node["ssh"]["host"]
            shell = self.shells[name]
            shell.ports[host, 8000] = self.engines[name].port
            shell.ports[host, 9000] = self.router.port
            shell.answers = {
                "systemctl show": partial(self._show, name),
                "systemctl stop": partial(self._set, name, "inactive"),
                "systemctl start": partial(self._set, name, "active"),
            }
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def _show(self, name: str, argv: Sequence[str]) -> str:
        active, result = self.state[name]
        return f"Id=vllm@0.service\nLoadState=loaded\nActiveState={active}\nSubState=x\nResult={result}"

    def _set(self, name: str, active: str, argv: Sequence[str]) -> str:
        self.state[name][0] = active
        return ""
