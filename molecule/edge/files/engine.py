#!/usr/bin/env python3
"""engine.py ADDRESS PORT: answers as an engine does, one "token" every 0.2 s, and tells the headers that it was sent.
/running tells how many answers that are not streamed it is making.

It computes nothing. What it shows of a proxy before it, a real engine would show as well: when bytes arrive, and who is
said to have asked.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN_S = 0.2
SHOWN = (
    "x-forwarded-for",
    "x-real-ip",
    "forwarded",
    "authorization",
    "x-kvstrata-client",
    "x-request-id",
    "x-forwarded-proto",
)


class Engine(BaseHTTPRequestHandler):
    """The part of the API that the test asks for."""

    protocol_version = "HTTP/1.1"
    running = 0
    lock = threading.Lock()

    def do_GET(self) -> None:
        """Answer /health, /v1/models and /running."""
        if self.path == "/health":
            self._whole({})
        elif self.path == "/v1/models":
            self._whole({"object": "list", "data": [{"id": "test", "object": "model"}]})
        elif self.path == "/running":
            self._whole(Engine.running)
        else:
            self._whole({"error": self.path}, 404)

    def do_POST(self) -> None:
        """Answer a completion, whole or token by token."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        tokens = int(asked.get("max_tokens") or 1)
        seen = {name: self.headers[name] for name in SHOWN if self.headers[name] is not None}
        if not asked.get("stream"):
            self._compute(tokens)
            usage = {"prompt_tokens": 1, "completion_tokens": tokens}
            choice = {"index": 0, "text": "a " * tokens, "finish_reason": "length"}
            self._whole(
                {"object": "text_completion", "model": "test", "choices": [choice], "usage": usage, "seen": seen}
            )
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(tokens):
            time.sleep(TOKEN_S)
            choice = {"index": 0, "text": f"{number} ", "finish_reason": None}
            self._event(json.dumps({"object": "text_completion", "choices": [choice], "seen": seen}))
        self._event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _compute(self, tokens: int) -> None:
        with Engine.lock:
            Engine.running += 1
        time.sleep(TOKEN_S * tokens)
        with Engine.lock:
            Engine.running -= 1

    def _event(self, data: str) -> None:
        text = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
        self.wfile.flush()

    def _whole(self, answer: Any, status: int = 200) -> None:
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Say nothing: the test reads answers."""


if __name__ == "__main__":
    ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Engine).serve_forever()
