"""The contract test's mocked engine, that also tells at /metrics how many requests it has, as vLLM does.

`counting_worker.py CONFIG.json`, in the nodes' environment.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from aiohttp import web

from kvstrata.contract import worker


class Counting(worker.Front):
    """See Front."""

    _running = 0

    def app(self) -> web.Application:
        """The same application, with /metrics."""
        app = super().app()
        app.router.add_get("/metrics", self._metrics)
        return app

    async def _metrics(self, _: web.Request) -> web.Response:
        text = f"vllm:num_requests_running {self._running}\nvllm:num_requests_waiting 0\n"
        return web.Response(text=text)

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        self._running += 1
        try:
            return await super()._completions(request)
        finally:
            self._running -= 1


if __name__ == "__main__":
    os.environ.setdefault("DYN_COMPUTE_THREADS", "0")
    asyncio.run(worker.main(worker.Config(**json.loads(Path(sys.argv[1]).read_text())), Counting))
