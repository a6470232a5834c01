"""An engine that answers at once: `python -m kvstrata.contract.instant PORT MODEL`. Standard library alone.

What a router adds to a request is measured against this, so that nothing an engine does hides it. Each answer is the
same few bytes; /render, which kv_aware asks for a prompt's tokens, gives the same tokens every time.
"""

from __future__ import annotations

import asyncio
import json
import sys

_TOKENS = 256


def answers(model: str, name: str) -> dict[bytes, bytes]:
    """Return the whole answer to each path."""
    usage = {"prompt_tokens": _TOKENS, "completion_tokens": 1, "total_tokens": _TOKENS + 1}
    choice = {"index": 0, "text": "a", "finish_reason": "length"}
    completion = {"id": "cmpl-0", "object": "text_completion", "model": model, "choices": [choice], "usage": usage}
    rendered = [{"request_id": "0", "token_ids": list(range(_TOKENS)), "sampling_params": {}, "model": model}]
    card = {"id": model, "object": "model", "max_model_len": 4096}
    return {
        b"/v1/completions": _ok({**completion, "worker": name}),
        b"/v1/completions/render": _ok(rendered),
        b"/v1/models": _ok({"object": "list", "data": [card]}),
        b"/health": _ok({}),
    }


def _ok(content: object) -> bytes:
    body = json.dumps(content).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body


_MISSING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


class Instant(asyncio.Protocol):
    """One connection."""

    def __init__(self, known: dict[bytes, bytes]) -> None:
        """`known` has the answers."""
        self._known = known
        self._rest = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (asyncio calls this)."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what create_server gives
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every whole request (asyncio calls this)."""
        self._rest += data
        while (end := self._rest.find(b"\r\n\r\n")) >= 0:
            head = self._rest[:end]
            length = 0
            for line in head.split(b"\r\n")[1:]:
                name, _, value = line.partition(b":")
                if name.strip().lower() == b"content-length":
                    length = int(value)
            if len(self._rest) < end + 4 + length:
                return
            self._rest = self._rest[end + 4 + length :]
            path = head.split(b" ", 2)[1].partition(b"?")[0]
            if self._transport is not None:
                self._transport.write(self._known.get(path, _MISSING))


async def main(port: int, model: str, name: str) -> None:
    """Serve until ended."""
    known = answers(model, name)
    server = await asyncio.get_running_loop().create_server(lambda: Instant(known), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else "instant"))
