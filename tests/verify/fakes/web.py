"""An HTTP server whose routes are functions of the request's body."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

type Route = Callable[[dict[str, Any]], object]


class Code(int):
    """An answer that is only a status code."""


class _Server(ThreadingHTTPServer):
    # The usual five make the sixth of many clients at once wait for a second.
    request_queue_size = 256


class WebServer:
    """A route returns text, something for JSON, a Code, or an iterator of server-sent events."""

    def __init__(self) -> None:
        self.routes: dict[str, Route] = {}
        self.wanted: dict[str, str] = {}
        """By path the Authorization that is asked for."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._reply({})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                self._reply(json.loads(body) if body else {})

            def _reply(self, body: dict[str, Any]) -> None:
                route = outer.routes.get(self.path)
                answer = Code(404) if route is None else route(body)
                if self.headers["authorization"] != outer.wanted.get(self.path, self.headers["authorization"]):
                    answer = Code(401)
                self.send_response(answer if isinstance(answer, Code) else 200)
                if isinstance(answer, Iterator):
                    self.end_headers()
                    # A client may leave before the end.
                    with suppress(BrokenPipeError, ConnectionResetError):
                        for event in answer:
                            self.wfile.write(f"data: {event}\n\n".encode())
                            self.wfile.flush()
                    return
                text = "" if isinstance(answer, Code) else answer if isinstance(answer, str) else json.dumps(answer)
                self.send_header("content-length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, format: str, *args: Any) -> None:
                """Keep the tests' output clean."""

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
